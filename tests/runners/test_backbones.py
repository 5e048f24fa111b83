"""Networks: shapes, parameters, gradients and weights, against torchvision, closed forms and known counts."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losses.base import Prediction
from losses.p2p import anchors
from runners.backbones import build_counter, defaults, fits, load, names, weights_hash
from runners.backbones.heads import (
    BayesianHead,
    NonNegative,
    PointHead,
    PyramidHead,
    SpatialEncoder,
    resample_density,
)
from runners.backbones.spec import HEADS, OUTPUTS, STRIDES
from runners.backbones.weights import WeightsError, read

LIGHT = ("mobilenetv2", "mcnn", "tiny")
ALL = (*names(), "timm:resnet18")
BUILDABLE = [(backbone, head) for backbone in ALL for head in load(backbone).reads]


def reads(head: str) -> str:
    return "points" if head == "points" else "density"


def main(prediction: Prediction) -> Tensor:
    found = prediction.density if prediction.density is not None else prediction.logits
    assert found is not None
    return found


def on_meta(backbone: str, **options: object) -> nn.Module:
    """The network without memory or computation, for questions of shape."""
    with torch.device("meta"):
        return build_counter(backbone, weights="none", **options)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# Planning


def test_planning_does_not_import_torch() -> None:
    code = (
        "import sys, runners.backbones as b; assert 'vgg19' in b.names();"
        "[b.fits(n, h, 2) for n in b.names() for h in ('native', 'bl', 'pml')]; b.weights_hash('imagenet', 'vgg19');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names() -> None:
    assert names() == ("csrnet", "hrnet_w48", "mcnn", "mobilenetv2", "resnet101", "tiny", "vgg16_bn", "vgg19")


@pytest.mark.parametrize(
    ("backbone", "hint"),
    [("vgg91", "Did you mean vgg19"), ("timm:resnet81", "Did you mean"), ("timm:resnet18.tv_in2k", "resnet18.tv_in1k")],
)
def test_an_unknown_backbone_comes_with_suggestions(backbone: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        load(backbone)


def test_an_unknown_head_comes_with_suggestions() -> None:
    with pytest.raises(ValueError, match="Did you mean points"):
        fits("vgg19", "point")


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_timm_model_of_one_image_size_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match="cannot count"):
        load(f"timm:{model}")


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("mcnn", ("native", 4)),
        ("csrnet", ("native", 8)),
        ("resnet101", ("native", 8)),
        ("vgg19", ("bl", 8)),
        ("mobilenetv2", ("bl", 8)),
    ],
)
def test_default_head_and_stride(backbone: str, expected: tuple[str, int]) -> None:
    assert defaults(backbone) == expected
    assert defaults(backbone, "points") == ("points", 8)
    assert defaults(backbone, head="pml") == ("pml", 2)


@pytest.mark.parametrize("backbone", ALL)
@pytest.mark.parametrize("head", HEADS)
def test_fits_agrees_with_what_is_built(backbone: str, head: str) -> None:
    """Every stride: the planned shape, or the very reason that planning gave."""
    for stride in (*STRIDES, 3, 32):
        reason = fits(backbone, head, stride, reads(head))
        if reason is not None:
            with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
                build_counter(backbone, head=head, stride=stride, reads=reads(head), weights="none")
            continue
        network = on_meta(backbone, head=head, stride=stride, reads=reads(head))
        height, width = 2 * network.multiple, 3 * network.multiple
        found = network(torch.zeros(2, 3, height, width, device="meta"))
        assert found.stride == network.stride == stride
        cells = (height // stride, width // stride)
        expected = (2, 4 * cells[0] * cells[1], 2) if head == "points" else (2, 1, *cells)
        assert main(found).shape == expected
        assert found.points is None or found.points.shape == expected


def test_misfits_have_reasons() -> None:
    assert "no points head" in (fits("mcnn", reads="points") or "")
    assert "loss reads points" in (fits("vgg19", "bl", reads="points") or "")
    assert "loss reads density" in (fits("vgg19", "points") or "")
    assert "cannot give stride 16" in (fits("vgg19", "pml", 16) or "")
    assert "choose one of 1, 2, 4, 8, 16" in (fits("vgg19", "bl", 3) or "")
    with pytest.raises(ValueError, match="output must be one of"):
        build_counter("mcnn", output="tanh")


# ---------------------------------------------------------------------------------------------------------------------
# Architecture


@pytest.mark.parametrize(
    ("backbone", "head", "features", "decoder"),
    [
        ("vgg19", "bl", 20_024_384, 9 * (512 * 256 + 256 * 128) + 256 + 128 + 129),  # torchvision's vgg19().features
        ("vgg16_bn", "points", 14_723_136, None),  # torchvision's vgg16_bn().features
        ("csrnet", "native", 7_635_264, 16_263_489 - 7_635_264),  # 16.26 million in all, as reported for CSRNet
        ("mcnn", "native", 133_674, 31),  # 0.13 million, as reported for MCNN
        ("resnet101", "native", 27_535_424, None),  # torchvision's resnet101 without layer4 and fc
        ("mobilenetv2", "bl", 2_223_872 - 320 * 1280 - 2 * 1280, None),  # torchvision's features without the last layer
    ],
)
def test_parameter_counts(backbone: str, head: str, features: int, decoder: int | None) -> None:
    network = on_meta(backbone, head=head, reads=reads(head))
    assert count(network.backbone) == features
    assert decoder is None or count(network.decoder) == decoder


@pytest.mark.parametrize(("backbone", "head"), BUILDABLE)
def test_the_gradient_reaches_every_parameter(backbone: str, head: str) -> None:
    torch.manual_seed(1)
    network = build_counter(backbone, head=head, reads=reads(head), weights="none")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts the last one of a residual block from 0
            nn.init.ones_(module.weight)
    found = network(torch.randn(2, 3, 64, 96))
    if found.density is not None:
        assert bool((found.density >= 0).all())
    sum(field.square().sum() for field in (found.density, found.points, found.logits) if field is not None).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not silent


@pytest.mark.parametrize("backbone", LIGHT)
def test_no_fresh_light_network_is_dead(backbone: str) -> None:
    """Every head and stride starts with some people and a gradient."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    for head in set(load(backbone).reads) - {"points"}:
        for stride in (s for s in (2, 4, 8) if fits(backbone, head, s) is None):
            for seed in range(4):
                torch.manual_seed(seed)
                network = build_counter(backbone, head=head, stride=stride, weights="none")
                density = network(images).density
                density.sum().backward()
                last = [p for p in network.decoder.parameters() if p.dim() == 4][-1]
                assert 0 < density.sum().item() / 2 < 1000, (head, stride, seed)
                assert bool((last.grad != 0).any()), (head, stride, seed)


def test_a_relu_output_can_start_dead() -> None:
    """Why abs is the default: with the published ReLU about half of all fresh MCNNs give 0 and never learn."""
    dead = 0
    for seed in range(12):
        torch.manual_seed(seed)
        network = build_counter("mcnn", output="relu")
        density = network(torch.rand(1, 3, 64, 64)).density
        density.sum().backward()
        dead += not any(bool((p.grad != 0).any()) for p in network.parameters())
    assert 0 < dead < 12


def test_parameter_groups_split_the_network() -> None:
    network = build_counter("mobilenetv2", weights="none")
    groups = network.parameter_groups(1e-3, 0.1)
    assert [(group["name"], group["lr"]) for group in groups] == [("backbone", pytest.approx(1e-4)), ("head", 1e-3)]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in network.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    torch.optim.SGD(groups)


@pytest.mark.parametrize("shape", [(1, 3, 64, 70), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        build_counter("mcnn")(torch.zeros(shape))


# ---------------------------------------------------------------------------------------------------------------------
# Features against torchvision


def test_vgg19_features_are_those_of_torchvision() -> None:
    from torchvision.models import vgg

    from runners.backbones.features import TimmFeatures

    reference = vgg.make_layers(vgg.cfgs["E"])
    state = {f"features.{key}": value for key, value in reference.state_dict().items()}
    features = TimmFeatures(load("vgg19"), (8, 16), state)
    images = torch.randn(1, 3, 64, 48)
    maps = features(images)
    fine = reference[:27](images)  # conv4_4 and its ReLU
    torch.testing.assert_close(maps[8], fine)
    torch.testing.assert_close(maps[16], reference[27:36](fine))  # pool4 to conv5_4 and its ReLU; no pool5


def test_resnet101_keeps_stride_8_in_layer3() -> None:
    from torchvision.models import resnet101

    from runners.backbones.features import TimmFeatures

    reference = resnet101().eval()
    features = TimmFeatures(load("resnet101"), (4, 8), reference.state_dict()).eval()
    reference.layer3[0].conv2.stride = reference.layer3[0].downsample[0].stride = (1, 1)
    x = images = torch.randn(1, 3, 64, 48)
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1"):
        x = getattr(reference, name)(x)
    with torch.no_grad():
        maps = features(images)
        torch.testing.assert_close(maps[4], x)
        torch.testing.assert_close(maps[8], reference.layer3(reference.layer2(x)))


# ---------------------------------------------------------------------------------------------------------------------
# Heads


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1), st.sampled_from(OUTPUTS))
@settings(max_examples=40, deadline=None)
def test_outputs_are_never_negative_and_keep_what_is_positive(values: list[float], kind: str) -> None:
    z = torch.tensor(values)
    density = NonNegative(kind)(z)
    assert bool((density >= 0).all())
    assert torch.equal(density[z > 0], z[z > 0])


@given(st.sampled_from(STRIDES), st.sampled_from(STRIDES), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_the_count(stride: int, target: int, rows: int, columns: int, seed: int) -> None:
    density = torch.rand(1, 1, 16 * rows // stride, 16 * columns // stride, generator=torch.manual_seed(seed)).double()
    resampled = resample_density(density, stride, target)
    assert resampled.shape[-2:] == (16 * rows // target, 16 * columns // target)
    assert resampled.sum().item() == pytest.approx(density.sum().item())


def test_the_spatial_encoder_follows_its_recurrence() -> None:
    """One channel and a kernel of one: each sweep is x_i += relu(w x_(i-1)), with scalars that can be written out."""
    encoder = SpatialEncoder(1, kernel=1)
    weights = {"down": 0.5, "up": -0.25, "right": 2.0, "left": 1.5}
    for name, weight in weights.items():
        nn.init.constant_(getattr(encoder, name).weight, weight)
    x = torch.randn(1, 1, 4, 5)
    expected = [row[:] for row in x[0, 0].tolist()]
    for r in range(1, 4):
        for c in range(5):
            expected[r][c] += max(0.0, weights["down"] * expected[r - 1][c])
    for r in reversed(range(3)):
        for c in range(5):
            expected[r][c] += max(0.0, weights["up"] * expected[r + 1][c])
    for row in expected:
        for c in range(1, 5):
            row[c] += max(0.0, weights["right"] * row[c - 1])
        for c in reversed(range(4)):
            row[c] += max(0.0, weights["left"] * row[c + 1])
    torch.testing.assert_close(encoder(x)[0, 0], torch.tensor(expected))


def test_proposals_are_anchors_plus_a_hundred_times_the_regression() -> None:
    head = PointHead({8: 4}, 8, width=8)
    nn.init.zeros_(head.offsets[-1].weight)
    offsets = torch.arange(8.0) / 100
    head.offsets[-1].bias.data = offsets.clone()
    points, _ = head({8: torch.randn(1, 4, 3, 5)})
    shifts = points[0] - anchors(3, 5, 8)
    torch.testing.assert_close(shifts, (100 * offsets).view(4, 2).repeat(15, 1))


def make_symmetric(head: nn.Module) -> None:
    """Equal weights and no biases: what comes out lies around what went in."""
    for parameter in head.parameters():
        nn.init.constant_(parameter, 0.1 if parameter.dim() == 4 else 0.0)


def test_proposals_lie_in_their_own_cell() -> None:
    """A feature in one cell changes the logits of the proposals around it, whose anchors say where they are."""
    head = PointHead({8: 4}, 8, width=8)
    make_symmetric(head)
    maps = torch.zeros(1, 4, 13, 15)
    maps[..., 7, 6] = 1.0
    change = head({8: maps})[1].sum(-1)[0]
    centre = (anchors(13, 15, 8) * change[:, None]).sum(0) / change.sum()
    torch.testing.assert_close(centre, torch.tensor([6.5 * 8, 7.5 * 8]))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("make", "stride"), [(BayesianHead, 4), (BayesianHead, 8), (PyramidHead, 2), (PyramidHead, 8)])
def test_density_lies_where_the_features_are(make: type[nn.Module], stride: int, output: str) -> None:
    """The same for density heads: resizing and pixel shuffling keep positions, in pixels, whatever the stride."""
    head = make({8: 4, 16: 4}, stride, width=8, output=output)
    make_symmetric(head)
    maps = {8: torch.zeros(1, 4, 24, 32), 16: torch.zeros(1, 4, 12, 16)}
    maps[8][..., 10:12, 14:16] = 1.0
    maps[16][..., 5, 7] = 1.0
    density = head(maps)[0, 0].detach()
    density = density - density.min()
    centres = [(torch.arange(side) + 0.5) * stride for side in density.shape]
    found = [(density.sum(1 - axis) * centres[axis]).sum() / density.sum() for axis in range(2)]
    assert found == pytest.approx([11 * 8, 15 * 8], rel=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Weights


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_one_error_says_what_to_do() -> None:
    with pytest.raises(WeightsError) as error:
        build_counter("vgg19", weights="imagenet")
    message = str(error.value)
    assert "https://huggingface.co/timm/vgg19.tv_in1k/resolve/main/model.safetensors" in message
    assert "--weights /path/to/model.safetensors" in message
    assert "--weights none" in message


@pytest.mark.usefixtures("no_network")
def test_mcnn_needs_no_weights() -> None:
    assert build_counter("mcnn", weights="imagenet").head == "native"
    assert weights_hash("imagenet", "mcnn") == "none"
    for ask in (build_counter, lambda name, weights: weights_hash(weights, name)):
        with pytest.raises(ValueError, match="from scratch"):
            ask("mcnn", weights="some.pth")


def light_state() -> dict[str, Tensor]:
    import timm

    return timm.create_model("mobilenetv2_100").state_dict()


def first_layer(network: nn.Module) -> Tensor:
    return network.backbone.network.conv_stem.weight


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_weights_come_from_files(tmp_path: Path, wrap: object) -> None:
    state = light_state()
    torch.save(wrap(state), tmp_path / "weights.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        network = build_counter("mobilenetv2", weights=tmp_path / name)
        torch.testing.assert_close(first_layer(network), state["conv_stem.weight"], rtol=0, atol=0)
        assert "state_dict" not in network.backbone.network.pretrained_cfg


def test_the_hub_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = light_state()
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(tmp_path / "model.safetensors"))
    torch.testing.assert_close(first_layer(build_counter("mobilenetv2")), state["conv_stem.weight"], rtol=0, atol=0)


def test_weights_that_leave_a_layer_random_are_refused(tmp_path: Path) -> None:
    state = light_state()
    del state["blocks.3.1.conv_dw.weight"]
    save_file(state, tmp_path / "partial.safetensors")
    with pytest.raises(WeightsError, match=r"1 of 51 weights .*blocks\.3\.1\.conv_dw\.weight"):
        build_counter("mobilenetv2", weights=tmp_path / "partial.safetensors")
    save_file({"something": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="51 of 51 weights"):
        build_counter("mobilenetv2", weights=tmp_path / "other.safetensors")


class Harmful:
    """What a pickled file could run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_files_that_could_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Harmful()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="no file of plain tensors"):
        read(tmp_path / "evil.pth")
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.pth", None, "no weight file"),
        ("text.pth", b"hello", "no file of plain tensors"),
        ("text.safetensors", b"hello", "no readable safetensors"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=expected):
        read(tmp_path / name)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="found list"):
        read(tmp_path / "list.pth")


def test_weights_hash(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"abc")  # the standard's own test vector
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights_hash(tmp_path / "w.pth", "vgg19") == f"sha256:{known}"
    assert weights_hash("none", "vgg19") == "none"
    assert weights_hash("imagenet", "vgg19") == "timm:vgg19.tv_in1k"
    assert weights_hash("imagenet", "timm:resnet18").startswith("timm:resnet18.")
    with pytest.raises(WeightsError, match="no weight file"):
        weights_hash("imagnet", "vgg19")


@pytest.mark.shared
def test_real_weights_load_and_say_nothing(
    shared_dir: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_dir / "weights" / "mobilenetv2_100.imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name}")
    network = build_counter("mobilenetv2", weights=path).eval()
    state: Mapping[str, Tensor] = load_file(path)
    own = network.backbone.network.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert capsys.readouterr() == ("", "")


def test_same_seed_same_network() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(build_counter("mobilenetv2", head="pml", weights="none").state_dict())
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])
