"""Encoders: their sizes by hand and by the papers, which one is taken, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rltransfer.errors import InputError
from rltransfer.policies.encoder import Encoder, head, through
from rltransfer.policies.linear import Linear
from rltransfer.policies.network import Network, conv, mlp
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.policies.policy import PolicySpec


def image_space(channels: int, side: int, high: int = 1) -> spaces.Dict:
    return spaces.Dict({"policy": spaces.Box(0, high, (channels, side, side), np.uint8)})


def vector_space(size: int) -> spaces.Dict:
    return spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (size,), np.float32)})


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_grid_encoder_size():
    # 3 * 3 * 4 * 16 + 16 = 592; 8 * 8 * 16 = 1024 places; 1024 * 128 + 128 = 131,200.
    with torch.device("meta"):
        encoder = Encoder(Network(encoder="grid"), image_space(4, 10))
    assert num_parameters(encoder) == 592 + 131_200
    assert encoder.num_features == 128


@pytest.mark.parametrize(("width", "published"), [(1.0, 1_693_362), (0.5, 427_874)])
def test_nature_network_has_the_published_size(width: float, published: int):
    # Rusu 2015, table of networks: DQN and Dist-KL-net1, each with 18 outputs.
    with torch.device(
        "meta"
    ):  # Shapes without numbers: orthogonal matrices this size take a second.
        encoder = Encoder(Network(encoder="nature", width=width), image_space(4, 84, 255))
        layer = head(encoder.num_features, 18, 1.0)
    assert num_parameters(encoder) + num_parameters(layer) == published


@pytest.mark.parametrize(
    ("channels", "hidden", "published"),
    [((16, 16, 16), (128,), 113_346), ((16, 16, 16), (64,), 61_954)],
)
def test_channels_make_the_smaller_students_of_the_paper(
    channels: tuple[int, ...], hidden: tuple[int, ...], published: int
):
    # Rusu 2015, table of networks: Dist-KL-net2 and Dist-KL-net3, each with 18 outputs.
    encoder = Encoder(conv(channels=channels, hidden=hidden), image_space(4, 84, 255))
    layer = head(encoder.num_features, 18, 1.0)
    assert num_parameters(encoder) + num_parameters(layer) == published


def test_grid_encoder_with_its_own_channels():
    # 10 pixels: 8 places after a 3x3 convolution at every place, 3 after one at every other.
    # 3 * 3 * 4 * 8 + 8 = 296; 3 * 3 * 8 * 6 + 6 = 438; 3 * 3 * 6 * 10 + 10 = 550; 10 * 5 + 5 = 55.
    encoder = Encoder(conv(channels=(8, 6), hidden=(10, 5)), image_space(4, 10))
    assert num_parameters(encoder) == 296 + 438 + 550 + 55
    features = encoder({"policy": torch.zeros(2, 4, 10, 10)})
    assert features.shape == (2, encoder.num_features) == (2, 5)
    # Without layers after them, what convolutions say is the feature vector.
    assert Encoder(conv(channels=(8, 6), hidden=()), image_space(4, 10)).num_features == 54
    assert Encoder(conv(width=2, channels=(8,), hidden=(5,)), image_space(4, 10)).num_features == 10


@pytest.mark.parametrize(
    ("network", "space", "said"),
    [
        (Network(channels=(8,)), vector_space(5), "leave them out"),
        (conv(channels=(8, 8)), image_space(4, 84), "pass 3 numbers"),
        (conv(channels=(8, 8, 8, 8)), image_space(4, 10), "1 x 1 are left after 3: pass fewer"),
    ],
)
def test_channels_that_do_not_fit_are_refused(network: Network, space: spaces.Dict, said: str):
    with pytest.raises(InputError, match=said):
        Encoder(network, space)


def test_mlp_size():
    # 5 * 8 + 8 = 48 and 8 * 6 + 6 = 54.
    encoder = Encoder(mlp((8, 6)), vector_space(5))
    assert num_parameters(encoder) == 48 + 54
    assert encoder.num_features == 6


def test_width_scales_units():
    network = Network(width=0.25)
    assert [network.scaled(units) for units in (1, 2, 4, 16, 100)] == [1, 1, 1, 4, 25]
    assert Encoder(mlp((8, 6), width=2), vector_space(5)).num_features == 12


def first_layer(network: Network, space: spaces.Dict) -> nn.Module:
    with torch.device("meta"):
        layers = Encoder(network, space).layers
    assert isinstance(layers, nn.Sequential)
    return layers[0]


@pytest.mark.parametrize("encoder", ["auto", "conv"])
def test_small_and_large_images_take_their_own_encoder(encoder: str):
    network = Network(encoder=encoder)
    small = first_layer(network, image_space(4, 10))
    large = first_layer(network, image_space(4, 84))
    assert isinstance(small, nn.Conv2d) and small.kernel_size == (3, 3)
    assert isinstance(large, nn.Conv2d) and large.kernel_size == (8, 8)
    # 36 pixels: (36 - 8) / 4 + 1 = 8, (8 - 4) / 2 + 1 = 3, 3 - 3 + 1 = 1 place is left.
    least = first_layer(network, image_space(4, 36))
    assert isinstance(least, nn.Conv2d) and least.kernel_size == (8, 8)


def test_auto_takes_an_mlp_for_vectors():
    assert isinstance(first_layer(Network(), vector_space(5)), nn.Linear)


def test_bytes_are_scaled_to_one():
    torch.manual_seed(0)
    encoder = Encoder(conv(width=0.1), image_space(4, 10, high=255))
    pixels = torch.randint(0, 256, (2, 4, 10, 10), dtype=torch.uint8)
    expected = encoder.layers(pixels.float() / 255)
    # Tolerance: dividing by 255 and multiplying by its inverse round differently.
    torch.testing.assert_close(encoder({"policy": pixels}), expected, rtol=1e-5, atol=1e-6)
    # Planes of zeros and ones stay what they are.
    assert Encoder(conv(width=0.1), image_space(4, 10)).scale == 1.0


@pytest.mark.parametrize("high", [1, 255])
def test_bytes_go_straight_to_the_arithmetic_of_autocast(high: int):
    """The first layer would round scaled float32 to the same numbers."""
    encoder = Encoder(Network(encoder="grid"), image_space(1, 16, high))
    every_byte = torch.arange(256, dtype=torch.uint8).clamp(max=high).view(1, 1, 16, 16)
    before = encoder.inputs({"policy": every_byte})
    with torch.autocast("cpu", torch.bfloat16):
        inputs = encoder.inputs({"policy": every_byte})
    assert before.dtype == torch.float32
    assert inputs.dtype == torch.bfloat16
    assert torch.equal(inputs, before.bfloat16())


def test_maps_are_what_is_flattened():
    torch.manual_seed(0)
    encoder = Encoder(conv(width=0.1), image_space(4, 40, high=255))
    pixels = torch.randint(0, 256, (2, 4, 40, 40), dtype=torch.uint8)
    features, maps = through(encoder.layers, encoder.inputs({"policy": pixels}))
    # Three convolutions with a nonlinearity each.
    torch.testing.assert_close(maps, encoder.layers[:6](encoder.inputs({"policy": pixels})))
    assert torch.equal(features, encoder({"policy": pixels}))
    # Vectors, and images as vectors, have none.
    flat = Encoder(mlp((8,)), image_space(4, 40, high=255))
    assert through(flat.layers, flat.inputs({"policy": pixels}))[1] is None


def test_several_vectors_stand_side_by_side():
    space = spaces.Dict({
        "b": spaces.Box(-9.0, 9.0, (2,), np.float32),
        "a": spaces.Box(-9.0, 9.0, (1,), np.float64),
        "unused": spaces.Box(-9.0, 9.0, (7,), np.float32),
    })  # fmt: skip
    encoder = Encoder(Network(groups=("b", "a")), space)
    seen = encoder.vectors({
        "a": torch.tensor([[3.0]], dtype=torch.float64),
        "b": torch.tensor([[1.0, 2.0]]),
        "unused": torch.zeros(1, 7),
    })  # fmt: skip
    assert seen.dtype == torch.float32 and seen.tolist() == [[1.0, 2.0, 3.0]]


def test_layer_norm_stands_before_each_nonlinearity():
    for network, space, kinds in (
        (conv(), image_space(4, 10), (nn.GroupNorm, nn.LayerNorm)),
        (mlp(), vector_space(5), (nn.LayerNorm, nn.LayerNorm)),
    ):
        with torch.device("meta"):
            plain = Encoder(network, space)
        assert not any(isinstance(m, nn.GroupNorm | nn.LayerNorm) for m in plain.modules())
        normed = Encoder(Network(encoder=network.encoder, layer_norm=True), space)
        before = [type(one) for one, after in pairwise(normed.layers) if isinstance(after, nn.ReLU)]
        assert tuple(before) == kinds
    # With fresh weights a normed image has mean 0 and deviation 1 over channels and places.
    encoder = Encoder(Network(encoder="grid", width=0.1, layer_norm=True), image_space(4, 10))
    seen = encoder.layers[:2](torch.rand(3, 4, 10, 10))
    torch.testing.assert_close(seen.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std((1, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_network_is_relu_unless_a_method_means_something_else() -> None:
    kinds = {type(module) for module in Encoder(Network(), vector_space(2)).layers}
    assert nn.ReLU in kinds and nn.Tanh not in kinds
    spec = PolicySpec(Network(), vector_space(2), spaces.Discrete(2))
    assert spec.network == Network(activation="relu")
    # A file of an earlier version may lack newer options.
    stored = spec.to_json()
    del stored["network"]["activation"]
    assert PolicySpec.from_json(stored) == spec


def test_tanh_activation():
    kinds = {type(module) for module in Encoder(Network(activation="tanh"), vector_space(2)).layers}
    assert kinds == {Linear, nn.Tanh}


def test_running_normalizer_by_hand():
    normalizer = RunningNormalizer(1)
    # 1 and 3: mean 2, variance 1. With 5 as well: mean 3, variance (4 + 0 + 4) / 3.
    normalizer.update(torch.tensor([[1.0], [3.0]]))
    assert (normalizer.mean.item(), normalizer.variance.item(), normalizer.count.item()) == (
        2,
        1,
        2,
    )
    normalizer.update(torch.tensor([[[5.0]]]))
    assert normalizer.mean.item() == pytest.approx(3, rel=1e-6)
    assert normalizer.variance.item() == pytest.approx(8 / 3, rel=1e-6)
    assert normalizer.count.item() == 3
    # (5 - 3) / sqrt(8 / 3), and far away values are cut at 10 deviations.
    seen = normalizer(torch.tensor([[5.0], [1e6], [-1e6]])).flatten().tolist()
    assert seen == pytest.approx([2 / (8 / 3) ** 0.5, 10, -10], rel=1e-6)


def test_running_normalizer_in_parts_equals_all_at_once():
    torch.manual_seed(0)
    data = torch.randn(1000, 3) * torch.tensor([0.1, 1.0, 30.0]) + torch.tensor([5.0, -1.0, 100.0])
    normalizer = RunningNormalizer(3)
    for part in data.split([1, 99, 400, 500]):
        normalizer.update(part)
    # Tolerance: float32 sums of a thousand numbers.
    torch.testing.assert_close(normalizer.mean, data.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normalizer.variance, data.var(0, correction=0), rtol=1e-3, atol=0)


def test_fresh_normalizer_changes_nothing():
    vector = torch.tensor([[0.5, -2.0]])
    torch.testing.assert_close(RunningNormalizer(2)(vector), vector)


def test_each_tasks_vectors_have_their_own_mean_and_deviation():
    normalizer = RunningNormalizer(2, num_tasks=3)
    # The first task shows 1 and 3: mean 2, variance 1; its second number is padding. The second
    # shows (0, 100) and (0, 300): mean 200, variance 10,000. Of the third nothing is known.
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 100.0]], [[3.0, 0.0], [0.0, 300.0]]])
    task = torch.tensor([0, 1]).expand(2, 2)
    normalizer.update(vectors, task)
    assert normalizer.mean.tolist() == [[2, 0], [0, 200], [0, 0]]
    assert normalizer.variance.tolist() == [[1, 0], [0, 10_000], [1, 1]]
    assert normalizer.count.tolist() == [[2], [2], [0]]
    seen = normalizer(vectors, task).flatten().tolist()
    assert seen == pytest.approx([-1, 0, 0, -1, 1, 0, 0, 1], rel=1e-6)
    new = torch.tensor([[5.0, -5.0]])
    torch.testing.assert_close(normalizer(new, torch.tensor([2])), new)


def test_a_tasks_statistics_are_those_of_a_normalizer_of_its_own():
    torch.manual_seed(0)
    data = torch.randn(600, 3) * torch.tensor([0.1, 1.0, 30.0]) + torch.tensor([5.0, -1.0, 100.0])
    task = torch.randint(2, (600,))
    data[task == 1] *= -7.0
    both, alone = RunningNormalizer(3, num_tasks=2), [RunningNormalizer(3) for _ in range(2)]
    for part in torch.arange(600).split([50, 250, 300]):
        both.update(data[part], task[part])
        for index, one in enumerate(alone):
            one.update(data[part][task[part] == index])
    for index, one in enumerate(alone):
        # Tolerance: float32 sums in another order.
        torch.testing.assert_close(both.mean[index], one.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(both.variance[index], one.variance, rtol=1e-4, atol=0)
        assert both.count[index].item() == one.count.item()


def test_normalizer_is_only_for_vectors():
    assert Encoder(mlp(), vector_space(3)).normalizer is not None
    assert Encoder(Network(normalize=False), vector_space(3)).normalizer is None
    assert Encoder(conv(width=0.1), image_space(4, 10)).normalizer is None


def test_head_is_orthogonal_of_its_gain_with_zero_biases():
    torch.manual_seed(0)
    layer = head(64, 4, 0.5)
    # Four orthogonal rows of length 0.5: W W^T = 0.25 I. Tolerance: float32.
    expected = 0.25 * torch.eye(4)
    torch.testing.assert_close(layer.weight @ layer.weight.T, expected, atol=1e-6, rtol=0)
    assert not layer.bias.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0.0}, "A network's width is 0.0: it must be finite and above 0."),
        ({"width": float("nan")}, "width is nan"),
        ({"width": float("inf")}, "width is inf"),
        ({"hidden": (64, 0)}, "layers need at least 1 unit"),
        ({"gru": -1}, "a GRU of -1"),
        ({"groups": ()}, "reads no observation group"),
        ({"groups": ("a", "b", "a")}, "each may occur once"),
        ({"groups": "policy"}, "groups is 'policy': it must be a tuple, such as ('policy',)"),
        ({"channels": ()}, "at least one convolution is needed"),
        ({"channels": (8, 0)}, "each with at least 1 channel"),
        ({"channels": 16}, "channels is 16: it must be a tuple, such as (16,)"),
        ({"hidden": 64}, "hidden is 64: it must be a tuple, such as (64,)"),
        ({"encoder": "natrue"}, "There is no encoder 'natrue': did you mean 'nature'?"),
        ({"activation": "tahn"}, "There is no activation 'tahn': did you mean 'tanh'?"),
        ({"statistics": "own"}, "There is no kind of statistics 'own'"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, object], words: str):
    with pytest.raises(InputError) as caught:
        Network(**options)
    assert words in str(caught.value)


def test_missing_group_names_those_that_there_are():
    space = spaces.Dict(
        {"camera": image_space(4, 10)["policy"], "joints": vector_space(2)["policy"]}
    )
    with pytest.raises(InputError) as caught:
        Encoder(Network(groups=("policy",)), space)
    assert str(caught.value) == (
        "The network reads the observation group 'policy', but there are only 'camera', 'joints': "
        "pass --groups camera joints, or some of these."
    )


def test_image_must_be_alone():
    space = spaces.Dict(
        {"camera": image_space(4, 10)["policy"], "joints": vector_space(2)["policy"]}
    )
    with pytest.raises(InputError, match="an image must be the only group"):
        Encoder(Network(groups=("camera", "joints")), space)


def test_hidden_layers_are_an_mlps():
    with pytest.raises(
        InputError, match=r"`hidden` has no effect on a grid encoder unless `channels` is set"
    ):
        Encoder(Network(hidden=(32,)), image_space(4, 10))
    assert Encoder(Network(encoder="mlp", hidden=(32,)), image_space(4, 10)).num_features == 32


@pytest.mark.parametrize("encoder", ["conv", "grid", "nature"])
def test_convolutions_need_an_image(encoder: str):
    with pytest.raises(InputError, match=r"has the shape \(5,\): use an mlp"):
        Encoder(Network(encoder=encoder), vector_space(5))


def test_nature_network_needs_a_large_image():
    with pytest.raises(InputError, match="at least 36 pixels a side"):
        Encoder(Network(encoder="nature"), image_space(4, 35))
