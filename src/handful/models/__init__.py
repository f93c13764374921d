"""Networks: small ones of our own, backbones from timm and torchvision, heads, averages."""
