"""Published names of the parameters of SR3 and its DDPM twin, and the settings their shapes tell."""
