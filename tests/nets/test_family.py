"""Properties that hold for every member of the family, whatever its settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.inference.engines import torch_engine
from septa.nets import UNet
from septa.nets.blocks import Pointwise
from septa.nets.encoders import PlainEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

SAME: dict[str, dict[str, Any]] = {
    "plain": {},
    "bilinear": {"up": "bilinear"},
    "reduced": {"reduction": 2, "norm": "none"},
    "magnified": {"magnification": 2},
    "residual": {"block": "residual"},
    "attention": {"attention": True},
    "aspp": {"aspp": True},
    "nested": {"nested": True},
    "supervised": {"nested": True, "deep_supervision": True},
    "much": {"nested": True, "attention": True, "block": "residual", "up": "bilinear", "deep_supervision": True},
}
VALID: dict[str, dict[str, Any]] = {
    "valid": {"norm": "none"},
    "valid bilinear": {"up": "bilinear"},
    "valid residual": {"block": "residual"},
    "valid attention": {"attention": True},
    "valid supervised": {"nested": True, "deep_supervision": True},
    "valid much": {"nested": True, "attention": True, "block": "residual", "up": "bilinear", "deep_supervision": True},
}
MEMBERS = SAME | {name: {"padding": "valid", **member} for name, member in VALID.items()}
POOLING: dict[str, dict[str, Any]] = {
    "squeeze": {"squeeze": True},
    "valid squeeze": {"squeeze": True, "padding": "valid"},
    "group": {"norm": "group", "aspp": True},
}


def make(member: str, depth: int, width: int, seed: int = 0, channels: int = 1) -> UNet:
    """Build a net with random weights and statistics."""
    torch.manual_seed(seed)
    net = UNet(channels, 2, depth=depth, width=width, **{**MEMBERS, **POOLING}[member])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
    return net.eval()


def picture(height: int, width: int, channels: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((channels, height, width), dtype=np.float32)


# --- any size, exact tiles ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*MEMBERS, *POOLING]), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))
def test_any_size_gives_logits_of_the_computed_size(member: str, depth: int, height: int, width: int) -> None:
    net = make(member, depth, 2)
    height, width = net.valid_size(height), net.valid_size(width)
    with torch.inference_mode():
        logits = net(torch.randn(1, 1, height, width))
    assert logits.shape == (1, 2, net.output_size(height), net.output_size(width))
    assert logits.shape[2:] == (height - 2 * net.margin, width - 2 * net.margin)
    assert torch.isfinite(logits).all()
    assert (net.margin > 0) == member.startswith("valid")
    full = net.pad_size(height, width)
    if net.margin:
        assert all(net.output_size(side) >= size for side, size in zip(full, (height, width), strict=True))
    else:
        assert all(side % net.multiple == 0 <= side - size for side, size in zip(full, (height, width), strict=True))


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, float]:
    """Draw the number of cells before a core, of cells in it, and the share of the halo that follows it."""
    return draw(st.integers(0, 9)), draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.3, 1.2]))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SAME)), st.integers(1, 3), st.integers(2, 6), st.integers(1, 3), axes(), axes(), st.data()
)
def test_a_tile_equals_the_whole(
    member: str, depth: int, width: int, channels: int, y: tuple[int, int, float], x: tuple[int, int, float], data: Any
) -> None:
    net = make(member, min(depth, 2) if member in ("aspp", "reduced") else depth, width, channels=channels)
    assert net.exact_tiles
    sizes, cores, windows = [], [], []
    for before, cells, after in (y, x):
        start = (before + (net.halo // net.multiple if before > 4 else 0)) * net.multiple
        end = start + cells * net.multiple
        size = end + int(after * net.halo) + data.draw(st.integers(0, 3))
        sizes.append(size)
        cores.append(slice(start, min(end, size)))
        windows.append(slice(max(0, start - net.halo), min(size, end + net.halo)))
    image, engine = picture(*sizes, channels), torch_engine(net)
    whole, tile = engine(image), engine(image[:, windows[0], windows[1]])
    inside = [slice(c.start - w.start, c.stop - w.start) for c, w in zip(cores, windows, strict=True)]
    # Exact: a tiled prediction equals the whole-image prediction by design.
    np.testing.assert_array_equal(tile[:, inside[0], inside[1]], whole[:, cores[0], cores[1]])


def mirror(image: NDArray[np.float32], net: UNet, y: tuple[int, int], x: tuple[int, int]) -> NDArray[np.float32]:
    """Return the window that a valid net reads for the core from y[0] to y[1] and x[0] to x[1]."""
    indices = []
    for (start, end), size in zip((y, x), image.shape[1:], strict=True):
        length = net.input_size(end - start)
        line = np.pad(np.arange(size), net.margin + length, mode="reflect")
        # The line begins margin + length pixels before the image, and the window margin pixels before the core.
        first = start + length
        indices.append(line[first : first + length])
    return image[:, indices[0]][:, :, indices[1]]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(VALID)), st.integers(1, 3), st.integers(2, 6), st.tuples(*[st.integers(0, 5)] * 4), st.data()
)
def test_a_tile_of_a_valid_net_equals_the_whole(
    member: str, depth: int, width: int, cells: tuple[int, int, int, int], data: Any
) -> None:
    net = make(member, depth, width)
    starts = [at * net.multiple for at in cells[:2]]
    ends = [start + (1 + at) * net.multiple for start, at in zip(starts, cells[2:], strict=True)]
    height, wide = (end + data.draw(st.integers(0, 40)) for end in ends)
    image, engine = picture(height, wide), torch_engine(net)
    whole = engine(mirror(image, net, (0, height), (0, wide)))
    y, x = zip(starts, ends, strict=True)
    tile = engine(mirror(image, net, y, x))
    core = tile[:, : ends[0] - starts[0], : ends[1] - starts[1]]
    # Exact: a tiled prediction equals the whole-image prediction by design.
    np.testing.assert_array_equal(core, whole[:, starts[0] : ends[0], starts[1] : ends[1]])


def test_a_tile_equals_the_whole_with_another_encoder() -> None:
    net = UNet(1, 2, width=2, encoder="resnet18", attention=True).eval()
    image, engine, m = picture(32, 2 * net.halo + 128), torch_engine(net), net.multiple
    whole, start = engine(image), net.halo + m
    window = image[:, :, m : start + m + net.halo]
    # Exact: a tiled prediction equals the whole-image prediction by design.
    np.testing.assert_array_equal(engine(window)[:, :, net.halo : net.halo + m], whole[:, :, start : start + m])


@pytest.mark.parametrize("member", sorted(POOLING))
def test_where_tiles_are_not_exact_far_pixels_matter(member: str) -> None:
    net = make(member, 1, 4)
    assert not net.exact_tiles
    side = net.valid_size(160)
    image = torch.randn(1, 1, side, side)
    other = image.clone()
    other[..., -4:, -4:] += 9
    with torch.inference_mode():
        assert not torch.equal(net(image)[..., :8, :8], net(other)[..., :8, :8])


# --- receptive field and halo, against nets in which nothing cancels ------------------------------------------------


def make_positive(member: str, depth: int) -> UNet:
    """Build a net in which every output pixel grows with every input pixel that it depends on.

    Weights are positive, and sum up to 1 so that the gates stay open. Max pooling would hide all but the largest pixel
    of a cell, so it is replaced by the mean.
    """
    net = UNet(1, 1, depth=depth, width=1, **{**MEMBERS[member], "norm": "none"}).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / (module.weight[0].numel()))
    assert isinstance(net.encoder, PlainEncoder)
    net.encoder.down = nn.AvgPool2d(2)  # type: ignore[assignment]
    return net


def make_plain(member: str, depth: int) -> UNet:
    """Build the net whose computed spans are compared with the gradients of `make_positive`."""
    return UNet(1, 1, depth=depth, width=1, **{**MEMBERS[member], "norm": "none"})


def find_hull(gradient: Tensor) -> tuple[int, int]:
    """Return the smallest span of columns that contains all positive gradients."""
    hit = np.flatnonzero((gradient[0, 0] > 0).any(0).numpy())
    return int(hit[0]), int(hit[-1]) + 1


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("member", MEMBERS)
def test_needs_are_what_gradients_reach(member: str, depth: int) -> None:
    net, like = make_positive(member, depth), make_plain(member, depth)
    m = like.multiple
    first = 0 if like.margin else like.halo + m
    wide = like.input_size(m) if like.margin else 2 * first + m
    high = like.valid_size(1) if like.margin else 2 * m
    image = torch.ones(1, 1, high, wide, dtype=torch.float64, requires_grad=True)
    logits = net(image)
    spans = []
    for at in range(first, first + m):
        (gradient,) = torch.autograd.grad(logits[0, 0, :, at].sum(), image, retain_graph=True)
        spans.append(find_hull(gradient))
        assert like.needs((at, at + 1)) == spans[-1]
    low, top = min(span[0] for span in spans), max(span[1] for span in spans)
    assert like.needs((first, first + m)) == (low, top)
    assert like.receptive_field == max(span[1] - span[0] for span in spans)
    if like.margin:
        assert 0 <= low < m
        assert like.halo == like.margin
    else:
        assert like.halo - m < max(first - low, top - first - m) <= like.halo


@pytest.mark.parametrize("member", MEMBERS)
def test_a_smaller_halo_is_too_small(member: str) -> None:
    """With one cell less of context the result differs, in nets in which nothing cancels."""
    net, like = make_positive(member, 2), make_plain(member, 2)
    m, halo = like.multiple, like.halo
    high = like.valid_size(1) if like.margin else 2 * m
    equal = {}
    for less in (0, m):
        if like.margin:
            whole = torch.rand(1, 1, high, like.input_size(m), dtype=torch.float64)
            window = whole.clone()
            window[..., :less] = window[..., less : 2 * less].flip(-1)
            expected, found = net(whole)[..., :m], net(window)[..., :m]
        else:
            whole = torch.rand(1, 1, high, 2 * halo + 3 * m, dtype=torch.float64)
            window = whole[..., m + less : 2 * halo + 2 * m - less]
            expected = net(whole)[..., halo + m : halo + 2 * m]
            found = net(window)[..., halo - less : halo - less + m]
        equal[less] = torch.allclose(found, expected, rtol=1e-13, atol=0)
    assert equal == {0: True, m: False}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_nodes_needs_are_what_gradients_reach(member: str) -> None:
    depth = 2
    net, like = make_positive(member, depth), make_plain(member, depth)
    nodes = {(level, 0): f"encoder.{level}" for level in range(depth + 1)}
    for key in net.decoder:
        level, _, column = key.partition("_")
        nodes[int(level), int(column or depth - int(level))] = f"decoder.{key}"
    if "aspp" in member:
        nodes[depth, 0] = "aspp"
    seen: dict[str, Tensor] = {}
    for name in nodes.values():
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    high = like.valid_size(1) if like.margin else 2 * like.multiple
    wide = like.input_size(4 * like.multiple) if like.margin else 2 * like.halo + 4 * like.multiple
    image = torch.ones(1, 1, high, wide, dtype=torch.float64, requires_grad=True)
    net(image)
    for (level, column), name in nodes.items():
        out = seen[name]
        at = out.shape[-1] // 2
        (gradient,) = torch.autograd.grad(out[0, 0, :, at].sum(), image, retain_graph=True)
        assert like.node_needs(level, column, (at, at + 1)) == find_hull(gradient), name
    with pytest.raises(ValueError, match=r"no node \(0, 3\)"):
        like.node_needs(0, 3, (0, 1))


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "depth", "width"), [(1, 1, 4), (3, 2, 4), (1, 3, 8)])
@pytest.mark.parametrize("member", MEMBERS)
def test_from_steady_pixels_on_every_convolution_reads_enough_values(
    member: str, channels: int, depth: int, width: int
) -> None:
    with torch.device("meta"):
        net = UNet(channels, 2, depth=depth, width=width, **MEMBERS[member]).eval()
    read: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_pre_hook(lambda _m, inputs: read.append(inputs[0].numel()))

    def fewest(height: int, wide: int) -> int:
        read.clear()
        net(torch.empty(1, channels, height, wide, device="meta"))
        return min(read)

    low = net.valid_size(1) if net.margin else 2 * net.multiple
    shapes = [(low + at * net.multiple,) * 2 for at in (1, 8, 30)]
    wide = low + max(0, math.ceil((net.steady_pixels / low - low) / net.multiple)) * net.multiple
    for height, at in [*shapes, (low, wide)]:
        assert (height * at < net.steady_pixels) or fewest(height, at) > 20_480
    # The number is also the smallest possible.
    assert wide == low or fewest(low, wide - net.multiple) <= 20_480


@pytest.mark.parametrize("width", [4, 16])
def test_bytes_at_the_peak(width: int) -> None:
    """The peak is at the concatenation at full resolution, which exists together with its parts.

    These are the skip connection, the upsampled coarser node, and that node itself, which has a quarter of the pixels
    and twice the channels.
    """
    values = width + width + width / 2 + 2 * width
    net = UNet(3, 2, depth=3, width=width)
    assert net.bytes_per_pixel == 4 * (values + 3) + 100
    reduced = UNet(3, 2, depth=3, width=width, reduction=2)
    assert reduced.bytes_per_pixel == max(4 * (values / 4 + 3 / 4 + 3) + 100, 149)  # 149: the logits' enlargement
    for more in ("attention", "nested"):
        assert UNet(3, 2, depth=3, width=width, **{more: True}).bytes_per_pixel > net.bytes_per_pixel


# --- deep supervision and pruning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("reduction", [1, 2])
def test_deep_supervision(nested: bool, padding: str, reduction: int) -> None:
    if padding == "valid" and reduction > 1:
        return
    net = UNet(1, 3, depth=3, width=2, padding=padding, nested=nested, deep_supervision=True, reduction=reduction)
    size = net.valid_size(100)
    image = torch.randn(2, 1, size, size)
    outputs = net.train()(image)
    weights = net.supervision_weights
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(weights) == 3
    assert all(output.shape == (2, 3, *[net.output_size(size)] * 2) for output in outputs)
    assert math.isclose(sum(weights), 1)
    assert list(weights) == sorted(weights, reverse=True)
    sum((w * o).square().mean() for w, o in zip(weights, outputs, strict=True)).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that both passes use the same statistics
    with torch.no_grad():
        outputs = net(image)
        logits = net.eval()(image)
    expected = torch.stack(outputs).mean(0) if nested else outputs[0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert UNet(1, 1, depth=2, width=1).supervision_weights == (1.0,)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_coarser_logits_lie_where_the_finest_do(padding: str) -> None:
    """A bright spot in the middle of a symmetric image appears in the middle of every output."""
    net = UNet(1, 1, depth=3, width=1, padding=padding, norm="none", deep_supervision=True).double()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    side = net.input_size(64) if padding == "valid" else 64
    image = torch.zeros(1, 1, side, side, dtype=torch.float64)
    image[..., side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 1
    for output in net.train()(image):
        torch.testing.assert_close(output, output.flip(2, 3))
        values = output[0, 0].detach()
        torch.testing.assert_close(values[values.shape[0] // 2, values.shape[1] // 2], values.max())
        assert values.max() > 1e3 * values.min()


@pytest.mark.parametrize(
    "changes", [{}, {"padding": "valid"}, {"attention": True, "block": "residual"}, {"aspp": True}]
)
def test_a_pruned_net_is_the_full_nets_head(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = UNet(1, 2, depth=3, width=3, norm="none", nested=True, deep_supervision=True, **changes)
    size = net.valid_size(144)
    image = torch.randn(1, 1, size, size)
    with torch.no_grad():
        outputs = net.train()(image)
        net.eval()
        for depth in (1, 2, 3):
            small = net.prune(depth)
            assert not small.training
            inside = (net.margin - small.margin, size - net.margin - small.margin)
            pruned_side = size if small.valid_size(size) == size else None
            assert pruned_side == size
            logits = small(image)[..., slice(*inside), slice(*inside)]
            torch.testing.assert_close(logits, outputs[3 - depth], rtol=1e-5, atol=1e-5)
            theirs = {id(p) for p in net.parameters()}
            assert all(id(p) in theirs and not p.is_meta for p in small.parameters())
            assert small.multiple == 2**depth
            assert small.bytes_per_pixel <= net.bytes_per_pixel
            like = UNet(1, 2, depth=depth, width=3, norm="none", nested=True, **{**changes, "aspp": False})
            if "aspp" not in changes:
                assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in like.parameters())


def test_nets_that_cannot_be_pruned_are_refused() -> None:
    for changes in ({"nested": True}, {"deep_supervision": True}):
        with pytest.raises(ValueError, match="nested=true, deep_supervision=true"):
            UNet(1, 1, depth=2, width=1, **changes).prune(1)
    net = UNet(1, 1, depth=2, width=1, nested=True, deep_supervision=True)
    for depth in (0, 3):
        with pytest.raises(ValueError, match=f"depth must be 1 to 2, got {depth}"):
            net.prune(depth)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [*MEMBERS, *POOLING])
def test_a_state_dict_restores_the_net(member: str) -> None:
    net, other = make(member, 2, 4, seed=1), make(member, 2, 4, seed=2)
    image = torch.randn(1, 1, *[net.valid_size(40)] * 2)
    with torch.inference_mode():
        assert not torch.equal(net(image), other(image))
        other.load_state_dict(net.state_dict(), strict=True)
        # Exact: the same weights give the same values.
        assert torch.equal(net(image), other(image))


@pytest.mark.parametrize("member", [*MEMBERS, *POOLING])
def test_layout_stays_channels_last(member: str) -> None:
    """If the layout is lost in one layer, every later convolution has to copy."""
    net = make(member, 2, 4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lost = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):

            def look(_m: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                if not inputs[0].is_contiguous(memory_format=torch.channels_last):
                    lost.append(name)

            module.register_forward_pre_hook(look)
    side = net.valid_size(80)
    with torch.inference_mode():
        net(torch.randn(1, 1, side, side).contiguous(memory_format=torch.channels_last))
    # In valid nets these read cropped views.
    cut = ("gate", "shortcut") if net.margin else ("nothing",)
    assert [name for name in lost if not any(part in name for part in cut)] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("padding=valid", "reduction=2"), ("padding=valid", "aspp=true"), ("padding=valid", "encoder=resnet18")],
)
def test_settings_that_exclude_each_other_are_named(one: str, other: str) -> None:
    values = {"reduction": 2, "aspp": True, "encoder": "resnet18"}
    name = other.partition("=")[0]
    with pytest.raises(ValueError, match=f"{one} and {other} exclude each other"):
        UNet(1, 1, padding="valid", **{name: values[name]})  # type: ignore[arg-type]


def test_an_attention_gate_is_the_papers() -> None:
    net = make("attention", 1, 4)
    gate = net.gate["0"]
    skip, coarse = torch.randn(1, 4, 8, 12), torch.randn(1, 8, 4, 6)
    with torch.inference_mode():
        found = gate(skip, coarse)
        score = gate.score(torch.relu(gate.skip(skip) + gate.signal(coarse)))  # type: ignore[operator]
        shares = nn.functional.interpolate(torch.sigmoid(score), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found, skip * shares, rtol=1e-5, atol=1e-6)


def test_a_residual_block_adds_its_input() -> None:
    """With weights of 0 in the second norm, only the shortcut remains."""
    net = make("residual", 2, 4)
    block = net.encoder.get_submodule("1")  # type: ignore[attr-defined]
    nn.init.zeros_(block.norm2.weight)  # type: ignore[arg-type]
    nn.init.zeros_(block.norm2.bias)  # type: ignore[arg-type]
    x = torch.randn(1, 4, 6, 6)
    with torch.inference_mode():
        expected = torch.relu(block.shortcut(x))  # type: ignore[operator]
        torch.testing.assert_close(block(x), expected)
    assert isinstance(block.shortcut[0], nn.Conv2d)  # type: ignore[index]
    assert block.shortcut[0].kernel_size == (1, 1)  # type: ignore[index]


def test_a_pointwise_convolution_rounds_alike_at_every_size() -> None:
    """Ten channels to ten on one thread are a case in which PyTorch's own convolution rounds differently.

    The values are equal to the bit, which exact tiles rely on.
    """
    torch.manual_seed(0)
    conv = Pointwise(10, 10)
    x = torch.randn(2, 10, 60, 60)
    with torch.inference_mode():
        whole = conv(x)
        product = torch.einsum("oi,biyx->boyx", conv.weight[..., 0, 0], x)
        torch.testing.assert_close(whole, product + conv.bias.view(-1, 1, 1))  # type: ignore[union-attr]
        for height in (2, 3, 4, 8):
            for width in (2, 5, 23, 28, 31):
                assert torch.equal(conv(x[:, :, :height, :width]), whole[:, :, :height, :width])
