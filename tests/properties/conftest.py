"""One Hypothesis profile for all laws: no timing (a busy machine is no bug), the same examples in every run."""

import hypothesis

hypothesis.settings.register_profile("rsdiff", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("rsdiff")
