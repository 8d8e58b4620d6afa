"""ImageNet's mean and deviation, by which images are normalised for OSNet, published and ours."""

MEAN = (0.485, 0.456, 0.406)  # RGB, of values in 0..1
STD = (0.229, 0.224, 0.225)
