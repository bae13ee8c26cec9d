"""Image models as a trunk and a head: torchvision by tracing, transformers by watching their modules."""
