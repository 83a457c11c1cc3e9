"""The sample, data sets, packing, generated scenes, normalisation."""
