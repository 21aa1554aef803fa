"""Encoders of the pre-training: which networks are accepted, and that encoding visible patches equals timm's result."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.errors import EncoderError, ShapeError
from uniemox.model.encoder import build_encoder, check_plain, encode_visible, sincos_position
from uniemox.views.patches import patchify

# Name and image size: Ti to H, patches of 8, 14, 16 and 32 px.
PLAIN = [
    ("vit_tiny_patch16_224", 224),
    ("vit_small_patch16_224", 96),
    ("vit_small_patch8_224", 48),
    ("vit_small_patch14_dinov2", 70),
    # Four registers; neither they nor the CLS token have a position.
    ("vit_small_patch14_reg4_dinov2", 70),
    ("vit_base_patch16_224", 160),
    ("vit_base_patch32_224", 128),
    ("vit_base_patch14_dinov2", 98),
    ("vit_base_patch16_clip_224", 64),
    ("vit_large_patch16_224", 64),
    ("vit_large_patch14_224", 56),
    ("vit_huge_patch14_224", 42),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "size"), PLAIN)
def test_with_all_patches_visible_the_tokens_equal_timms(name: str, size: int) -> None:
    """Float32, 2e-5: the patch embedding is a matrix product here and a convolution there."""
    torch.manual_seed(0)
    vit = build_encoder(name, size, depth=2).eval()
    images = torch.randn(2, 3, size, size)
    length = vit.patch_embed.num_patches
    # In any order, because each patch brings its position.
    order = torch.stack([torch.randperm(length) for _ in range(2)])
    with torch.no_grad():
        tokens = encode_visible(vit, patchify(images, vit.patch_embed.patch_size[0]), order)
        expected = vit.forward_features(images)
    torch.testing.assert_close(tokens[:, 0], expected[:, 0], rtol=1e-4, atol=2e-5)
    expected_patches = torch.take_along_dim(expected[:, vit.num_prefix_tokens :], order[..., None], 1)
    torch.testing.assert_close(tokens[:, 1:], expected_patches, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("no_embed_class", [True, False])
def test_tokens_of_networks_with_registers_equal_timms(no_embed_class: bool) -> None:
    """Trained weights: tables and tokens are not at their initial values. Float32, 1e-5."""
    torch.manual_seed(0)
    options = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 0}
    vit = VisionTransformer(**options, reg_tokens=4, no_embed_class=no_embed_class).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = encode_visible(vit, patchify(images, 16), torch.arange(4).expand(2, -1))
        expected = vit.forward_features(images)
    expected = torch.cat([expected[:, :1], expected[:, 5:]], dim=1)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


def test_hidden_patches_have_no_influence() -> None:
    torch.manual_seed(0)
    vit = build_encoder("vit_tiny_patch16_224", 64, depth=2).eval()
    patches = torch.randn(1, 16, 768)
    visible = torch.tensor([[3, 7, 11, 2]])
    changed = patches.clone()
    changed[:, [0, 1, 15]] = 9.0
    assert torch.equal(encode_visible(vit, patches, visible), encode_visible(vit, changed, visible))
    changed[:, 7] = 9.0
    assert not torch.equal(encode_visible(vit, patches, visible), encode_visible(vit, changed, visible))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("beit_base_patch16_224", "Beit"),
        ("eva02_tiny_patch14_224", "Eva"),
        ("deit_tiny_distilled_patch16_224", "VisionTransformerDistilled"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
        ("resnet18", "ResNet"),
        ("vit_base_patch16_siglip_224", "CLS token"),
        ("vit_tiny_r_s16_p8_224", "patch embedding"),
        ("vit_little_patch16_reg4_gap_256", "CLS token"),
        ("vit_nope_patch16", "no model"),
    ],
)
def test_other_networks_are_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(EncoderError, match=name) as error:
        build_encoder(name, 224)
    assert any(part in str(error.value) for part in reason.split("|"))


def test_a_pooled_vit_without_final_norm_is_refused() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", global_pool="avg", num_classes=0)
    with pytest.raises(EncoderError, match="final norm"):
        check_plain(vit, "vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pos_drop_rate": 0.5}, "drops positions"),
        ({"patch_drop_rate": 0.5}, "drops positions or patches"),
        ({"in_chans": 1}, "not RGB"),
        ({"num_classes": 8}, "classifier"),
        ({"embed_dim": 30}, "width that 4 divides"),
        ({"embed_dim": 50}, "divisible"),
    ],
)
def test_options_that_the_pre_training_would_not_honour_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(EncoderError, match=reason):
        build_encoder("vit_tiny_patch16_224", 64, depth=1, **options)


@pytest.mark.parametrize("size", [65, 100, 8, 0, -16])
def test_an_image_size_that_the_patch_does_not_divide_is_refused(size: int) -> None:
    with pytest.raises(ShapeError, match=r"patches of 16 px|at least one patch"):
        build_encoder("vit_tiny_patch16_224", size)


def test_position_tables_equal_those_of_official_files(golden: object) -> None:
    """MAE's exactly, MoCo v3's and CAE's to 1e-7."""
    from uniemox.checkpoints.reading import read_weight_file

    def table(method: str, key: str, container: str) -> Tensor:
        return read_weight_file(golden / method / "checkpoint.pth").content[container][key]

    assert torch.equal(table("mae", "pos_embed", "model"), sincos_position(48, (4, 4)))
    by_row = sincos_position(48, (4, 4), rows_first=True)
    torch.testing.assert_close(
        table("moco_v3", "module.base_encoder.pos_embed", "state_dict"), by_row, rtol=0, atol=1e-7
    )
    torch.testing.assert_close(table("cae", "encoder.pos_embed", "model"), by_row, rtol=0, atol=1e-7)
