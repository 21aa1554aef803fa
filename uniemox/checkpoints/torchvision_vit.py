"""ViTs of torchvision (vit_l_16-*.pth) under the names of a plain ViT of timm, which is the same network."""

from collections.abc import Iterable

FIRST = "conv_proj.weight"  # by which such a file is known
NAMES = {
    "class_token": "cls_token",
    "conv_proj.": "patch_embed.proj.",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
}
LAYER_NAMES = {
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".self_attention.in_proj_": ".attn.qkv.",
    ".self_attention.out_proj.": ".attn.proj.",
    ".mlp.linear_1.": ".mlp.fc1.",
    ".mlp.linear_2.": ".mlp.fc2.",
    ".mlp.0.": ".mlp.fc1.",  # of newer versions
    ".mlp.3.": ".mlp.fc2.",
}


def is_torchvision_vit(names: Iterable[str]) -> bool:
    """Whether these are the names of torchvision's VisionTransformer."""
    return {FIRST, "class_token", "encoder.pos_embedding"} <= set(names)


def plain_name(name: str) -> str:
    """timm's name of a tensor.

    >>> plain_name("encoder.layers.encoder_layer_3.self_attention.in_proj_weight")
    'blocks.3.attn.qkv.weight'
    """
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    for theirs, ours in LAYER_NAMES.items():
        name = name.replace(theirs, ours)
    return name
