"""A plugin of rsdiff. Its dictionaries say what it adds: 'module:Class' is imported when it is used, so `rsdiff --help` stays quick."""

METHODS = {"mysr": "mysr.method:MySRConfig"}
NETWORKS = {"shuffle": "mysr.network:ShuffleNetConfig"}
DEGRADATIONS = {"haze": "mysr.degradation:HazeConfig"}
METRICS = "mysr.metric:METRICS"
