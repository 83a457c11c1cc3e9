"""Is a restored image as good as HR for what it is used for? A network trained on HR looks at bicubic, SR and HR.

Data with masks (`change_mask`) are searched for objects, data with class folders are recognised. The network, its training and the images
are the same for all three; differences are paired by image.
"""
