"""The network against the paper: sizes, the gate's properties, switches."""

from __future__ import annotations

import pytest
import torch

from models.osnet import (
    LEAST_WIDTH,
    AggregationGate,
    Architecture,
    OmniScaleBlock,
    OSNet,
    count_multiply_adds,
    count_parameters,
    input_size,
)

TINY = 0.25


@pytest.mark.parametrize("width", [0.0, 0.01, float("nan"), 4.5])
def test_a_width_that_leaves_no_channels_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match=r"width is .*expected 0\.015625 to 4"):
        Architecture(width=width)


def test_the_least_width_is_a_network() -> None:
    assert OSNet(Architecture(width=LEAST_WIDTH)).eval()(torch.zeros(1, 3, 64, 32)).shape == (
        1,
        512,
    )


@pytest.mark.parametrize("small_input", [False, True])
def test_the_last_map_has_the_size_that_is_said(small_input: bool) -> None:
    arch = Architecture(width=LEAST_WIDTH, small_input=small_input)
    network = OSNet(arch).eval()

    for height, width in ((16, 16), (28, 29), (32, 17), (64, 33), (61, 128)):
        assert network.features(torch.zeros(1, 3, height, width)).shape[2:] == arch.last_map(
            height, width
        )


@pytest.mark.parametrize(
    ("width", "millions", "multiply_adds"),
    [(1.0, 2.2, 978.9), (0.75, 1.3, 571.8), (0.5, 0.6, 272.9), (0.25, 0.2, 82.3)],
)
def test_parameters_and_multiply_adds_are_those_published(
    width: float, millions: float, multiply_adds: float
) -> None:
    network = OSNet(Architecture(width=width), classes=751)

    parameters, operations = count_parameters(network), count_multiply_adds(network)

    assert round(parameters / 1e6, 1) == millions
    assert round(operations / 1e6, 1) == pytest.approx(multiply_adds, abs=0.051)


def test_full_convolutions_cost_about_what_the_paper_says() -> None:
    """6.9 M values and 3384.9 M multiply-adds with full 3x3 convolutions; we count 3376.2 M."""
    network = OSNet(Architecture(lite="full"))

    assert round(count_parameters(network) / 1e6, 1) == 6.9
    assert count_multiply_adds(network) / 1e6 == pytest.approx(3384.9, rel=0.003)


@pytest.mark.parametrize(("scale", "multiply_adds"), [(0.75, 46.3), (0.5, 20.6), (0.25, 5.2)])
def test_input_scale_multiplies_the_work_by_its_square(scale: float, multiply_adds: float) -> None:
    network = OSNet(Architecture(width=0.25))

    operations = count_multiply_adds(network, *input_size(scale))

    assert operations / 1e6 == pytest.approx(multiply_adds, abs=0.06)


def test_counts_of_every_tensor_stay_what_they_were() -> None:
    networks = {w: OSNet(Architecture(width=w)) for w in (1.0, 0.75, 0.5, 0.25)}

    counts = {w: (count_parameters(n), count_multiply_adds(n)) for w, n in networks.items()}

    assert counts == {
        1.0: (2_169_508, 978_875_392),
        0.75: (1_285_754, 571_752_192),
        0.5: (630_034, 272_899_328),
        0.25: (201_864, 82_314_880),
    }


@pytest.mark.parametrize("normalisation", ["plain", "ibn", "ain"])
def test_embedding_has_512_values_whatever_the_variant(normalisation: str) -> None:
    arch = Architecture(width=TINY, normalisation=normalisation)  # type: ignore[arg-type]
    network = OSNet(arch).eval()

    embedding = network(torch.zeros(2, 3, 64, 32))

    assert embedding.shape == (2, 512)


@pytest.mark.parametrize("fusion", ["unified", "streamwise"])
def test_shared_gate_does_not_grow_with_the_number_of_streams(fusion: str) -> None:
    def gate_size(streams: int) -> int:
        arch = Architecture(streams=streams, fusion=fusion)  # type: ignore[arg-type]
        block = OmniScaleBlock(64, 256, arch)
        return sum(p.numel() for name, p in block.named_parameters() if name.startswith("gate"))

    sizes = {streams: gate_size(streams) for streams in (1, 2, 3, 4)}

    assert sizes[1] > 0
    assert len(set(sizes.values())) == 1


def test_separate_gates_grow_with_the_number_of_streams() -> None:
    def gate_size(streams: int) -> int:
        block = OmniScaleBlock(64, 256, Architecture(streams=streams, fusion="separate"))
        return sum(p.numel() for name, p in block.named_parameters() if name.startswith("gate"))

    assert gate_size(4) == 4 * gate_size(1)


def test_gradient_of_the_shared_gate_is_the_sum_over_streams() -> None:
    """Equation 4: what reaches the one gate is gathered from all streams of the block's output."""
    torch.manual_seed(3)
    block = OmniScaleBlock(16, 64, Architecture(width=TINY)).eval()
    assert isinstance(block.gate, AggregationGate)
    gate = list(block.gate.parameters())
    joined: list[torch.Tensor] = []
    block.conv3.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    x = torch.randn(2, 16, 8, 4)

    out = block(x)
    (*found, upstream) = torch.autograd.grad(out.square().sum(), [*gate, joined[0]])

    streams = [stream.detach() for stream in block.stream_outputs(x)]
    parts = [  # the gate of one stream moves the sum by what that stream lets through
        torch.autograd.grad(block.gate(s), gate, (upstream * s).sum((2, 3), keepdim=True))
        for s in streams
    ]
    for index, gradient in enumerate(found):
        torch.testing.assert_close(gradient, sum(part[index] for part in parts))
    assert all(any(g.abs().max() > 0 for g in part) for part in parts), "a stream without a share"


def test_separate_gates_have_gradients_of_their_own_stream_alone() -> None:
    torch.manual_seed(3)
    block = OmniScaleBlock(16, 64, Architecture(width=TINY, fusion="separate")).eval()
    assert block.gates is not None
    streams = block.stream_outputs(torch.randn(2, 16, 8, 4))

    second = block.gate_values(streams)[1].sum()

    gradients = torch.autograd.grad(second, list(block.gates.parameters()), allow_unused=True)
    reached = [gradient is not None for gradient in gradients]
    assert reached == [number == 1 for number in range(4) for _ in range(4)]


@pytest.mark.parametrize(("equal_depth", "sides"), [(False, [3, 5, 7, 9]), (True, [9, 9, 9, 9])])
def test_stream_t_sees_two_t_plus_one_pixels(equal_depth: bool, sides: list[int]) -> None:
    arch = Architecture(width=TINY, equal_depth=equal_depth)
    block = OmniScaleBlock(16, 64, arch).eval()
    for parameter in block.parameters():
        torch.nn.init.constant_(parameter, 0.1)  # nothing is cut off by a ReLU
    x = torch.ones(1, 16, 15, 15, requires_grad=True)

    seen = []
    for stream in block.stream_outputs(x):
        (gradient,) = torch.autograd.grad(stream[0, :, 7, 7].sum(), x, retain_graph=True)
        seen.append([int(gradient.abs().sum((0, 1, axis)).count_nonzero()) for axis in (2, 3)])

    assert seen == [[side, side] for side in sides]


def test_equal_depth_gives_every_stream_the_deepest_field() -> None:
    arch = Architecture(streams=3, equal_depth=True)

    assert arch.depths == (3, 3, 3)
    assert OSNet(Architecture(width=TINY, equal_depth=True)).eval()(
        torch.zeros(1, 3, 32, 16)
    ).shape == (1, 512)


@pytest.mark.parametrize("fusion", ["unified", "add", "concat", "separate", "streamwise", "fixed"])
@pytest.mark.parametrize("lite", ["pointwise_first", "depthwise_first", "full"])
def test_every_ablation_of_the_paper_trains(fusion: str, lite: str) -> None:
    arch = Architecture(width=TINY, streams=2, fusion=fusion, lite=lite)  # type: ignore[arg-type]
    network = OSNet(arch, classes=3)

    _, _, logits = network.heads(torch.randn(2, 3, 32, 16))
    assert logits is not None
    logits.sum().backward()

    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_fixed_gates_are_learned_but_do_not_look_at_the_input() -> None:
    torch.manual_seed(5)
    block = OmniScaleBlock(16, 64, Architecture(width=TINY, fusion="fixed")).eval()

    one = block.gate_values(block.stream_outputs(torch.randn(1, 16, 8, 4)))
    other = block.gate_values(block.stream_outputs(torch.randn(1, 16, 8, 4)))

    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert block.fixed_gates is not None
    assert block.fixed_gates.requires_grad


def test_attribute_head_gives_independent_labels() -> None:
    network = OSNet(Architecture(width=TINY), attributes=26).eval()

    images = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(8))
    before = network.attribute_logits(images)
    assert network.attributes is not None
    with torch.no_grad():
        network.attributes.bias[3] += 5.0
    after = network.attribute_logits(images)

    assert after.shape == (2, 26)
    moved = (after.sigmoid() - before.sigmoid()).abs().amax(0) > 1e-6
    assert moved.nonzero().flatten().tolist() == [3]
    with pytest.raises(ValueError, match="without an attribute head"):
        OSNet(Architecture(width=TINY)).attribute_logits(torch.zeros(1, 3, 32, 16))


def test_small_pictures_keep_their_resolution_through_the_stem() -> None:
    network = OSNet(Architecture(width=TINY, small_input=True), classes=10).eval()

    features = network.features(torch.zeros(1, 3, 32, 32))

    assert features.shape[2:] == (8, 8)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = OSNet(Architecture(width=TINY)).train()

    count_multiply_adds(network, 64, 32)

    assert network.training
    assert all(not module._forward_hooks for module in network.modules())


def test_impossible_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="T goes from 1 to 4"):
        Architecture(streams=5)
    with pytest.raises(ValueError, match="width"):
        Architecture(width=0)
