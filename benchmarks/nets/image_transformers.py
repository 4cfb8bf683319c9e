"""Image transformers of the zoo: ViT-B/16, DeiT-Tiny, BEiT, CLIP's vision tower, MobileViT.

From `transformers` configurations with random weights. Invariant: one image in, logits or
embeddings out, at the published sizes unless `small`.
"""

import transformers

from benchmarks.nets.seeding import Net, image, seeded
from benchmarks.nets.text import Hidden


def _sizes(small: bool, **full: int) -> dict[str, int]:
    if not small:
        return full
    return {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 32,
        "patch_size": 8,
    }


def _image_model(model, config, size: int, field: str = "logits", calibrate: bool = False) -> Net:
    build = lambda: Hidden(model(config), ("pixel_values",), (field,))
    module = seeded(build, calibrate=image(4, size) if calibrate else None)
    return Net(module, {"pixel_values": image(1, size)}, (field,))


def vit_b16(small: bool = False) -> Net:
    config = transformers.ViTConfig(**_sizes(small), num_labels=10 if small else 1000)
    return _image_model(transformers.ViTForImageClassification, config, config.image_size)


def deit_tiny(small: bool = False) -> Net:
    tiny = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    config = transformers.DeiTConfig(**_sizes(small, **tiny), num_labels=10 if small else 1000)
    return _image_model(transformers.DeiTForImageClassification, config, config.image_size)


def beit_base(small: bool = False) -> Net:
    config = transformers.BeitConfig(
        **_sizes(small),
        num_labels=10 if small else 1000,
        use_relative_position_bias=True,
        layer_scale_init_value=0.1,
    )
    return _image_model(transformers.BeitForImageClassification, config, config.image_size)


def clip_vision(small: bool = False) -> Net:
    config = transformers.CLIPVisionConfig(**_sizes(small))
    model = transformers.CLIPVisionModelWithProjection
    return _image_model(model, config, config.image_size, "image_embeds")


def mobilevit_small(small: bool = False) -> Net:
    if small:
        config = transformers.MobileViTConfig(
            hidden_sizes=[32, 48, 64],
            neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 96],
            image_size=64,
            num_labels=10,
        )
    else:
        config = transformers.MobileViTConfig(num_labels=1000)
    model = transformers.MobileViTForImageClassification
    return _image_model(model, config, config.image_size, calibrate=True)
