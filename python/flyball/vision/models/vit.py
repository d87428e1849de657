"""The vision transformer (Dosovitskiy et al., 2021), with DeiT's distillation token (Touvron et al., 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError, InputError
from flyball.vision.models.checks import one_of, share, whole
from flyball.vision.models.drop_path import DropPath, linear_rates
from flyball.vision.models.intermediates import Intermediates, wanted
from flyball.vision.models.positions import interpolate_positions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Size = int | tuple[int, int]

# Width, depth, heads.
VARIANTS: Mapping[str, tuple[int, int, int]] = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
_INFERENCE = ("average", "cls", "dist")


class PatchEmbed(nn.Module):
    """Squares of an image, each a token; with a stem of two convolutions before, they see across their edges.

    Args:
        channels: Of the images.
        width: Of a token.
        patch_size: Height and width of a square.
        conv_stem: Whether the stem is there.
    """

    def __init__(self, channels: int, width: int, patch_size: tuple[int, int], *, conv_stem: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stem: nn.Module = nn.Identity()
        if conv_stem:
            half = width // 2
            self.stem = nn.Sequential(
                nn.Conv2d(channels, half, 3, padding=1, bias=False),
                nn.BatchNorm2d(half),
                nn.GELU(),
                nn.Conv2d(half, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.GELU(),
            )
        self.proj = nn.Conv2d(width if conv_stem else channels, width, patch_size, patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (batch, patches, width).

        Raises:
            InputError: Height or width is no multiple of the patch.
        """
        grid_of((images.shape[2], images.shape[3]), self.patch_size)
        tokens: torch.Tensor = self.proj(self.stem(images))
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention of several heads.

    Args:
        width: Of a token.
        heads: How many; they divide the width.
        attention_dropout: Of the weights.
        dropout: Of what comes out.
    """

    def __init__(self, width: int, heads: int, attention_dropout: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens that have looked at each other."""
        queries, keys, values = self._split(tokens)
        dropped = self.attention_dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropped)
        return self._out(found, tokens.shape)

    def weights(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return how much each token looks at each: (batch, heads, tokens, tokens), rows that add up to 1."""
        queries, keys, _ = self._split(tokens)
        found: torch.Tensor = (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(-1)
        return found

    def _split(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, length, width = tokens.shape
        split = self.qkv(tokens).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return split[0], split[1], split[2]

    def _out(self, found: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        out: torch.Tensor = self.proj_drop(self.proj(found.transpose(1, 2).reshape(shape)))
        return out


class Mlp(nn.Module):
    """Two linear layers and a GELU between.

    Args:
        width: What comes in and goes out.
        hidden: Between.
        dropout: Behind both.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the tokens, each by itself."""
        found: torch.Tensor = self.drop(self.fc2(self.drop(functional.gelu(self.fc1(tokens)))))
        return found


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x).

    Args:
        width: Of a token.
        heads: Of the attention.
        hidden: Of the `Mlp`.
        dropout: Of what comes out of both branches.
        attention_dropout: Of the weights of the attention.
        drop_path: How often a branch is left out in training.
        norm_eps: Of the norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, attention_dropout, dropout)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, hidden, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the block's tokens."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        found: torch.Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return found


class VisionTransformer(nn.Module):
    """A vision transformer; with `distilled=True` a DeiT, which has a second token and head for what a teacher says.

    In training a distilled one returns (scores, what it takes the teacher to say); else one tensor of scores. The names
    of its parameters are timm's, so that a checkpoint of a ViT or a DeiT loads as it is.

    Args:
        variant: "tiny", "small" or "base": the width, depth and heads that are not given.
        image_size: Height and width of the images, or both.
        patch_size: Height and width of a patch, or both.
        channels: Of the images.
        classes: How many scores come out.
        width: Of a token.
        depth: How many blocks.
        heads: Of the attention; they divide the width.
        mlp_ratio: How many times as wide as the tokens the layer inside an `Mlp` is.
        distilled: Whether there are a distillation token and its head.
        inference: What a distilled one answers with when it does not train: "average" of both heads, "cls" or "dist".
        conv_stem: Whether two convolutions come before the patches.
        grey_to_rgb: Whether a learnt 1 x 1 convolution makes three channels of one.
        dropout: Behind the positions, the attention and the layers of an `Mlp`.
        attention_dropout: Of the weights of the attention.
        drop_path: How often a branch of the last block is left out in training; it rises to that from 0.
        cls_dropout: How often in training the class token of a sample is replaced by the mean of its patches.
        norm_eps: Of the norms; timm's is 1e-6.
        any_size: Whether images of other sizes are taken, with positions interpolated to their grid.

    Raises:
        ConfigError: The patches do not divide the image, the heads the width, or a number is out of its range.
    """

    dist_token: nn.Parameter
    head_dist: nn.Linear

    def __init__(
        self,
        *,
        variant: Literal["tiny", "small", "base"] = "tiny",
        image_size: Size = 32,
        patch_size: Size = 4,
        channels: int = 3,
        classes: int = 10,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        distilled: bool = False,
        inference: Literal["average", "cls", "dist"] = "average",
        conv_stem: bool = False,
        grey_to_rgb: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        cls_dropout: float = 0.0,
        norm_eps: float = 1e-6,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(VARIANTS))
        one_of("inference", inference, _INFERENCE)
        preset = VARIANTS[variant]
        width, depth, heads = (
            given if given is not None else ready for given, ready in zip((width, depth, heads), preset, strict=True)
        )
        whole(channels=channels, classes=classes, width=width, depth=depth, heads=heads)
        share(dropout=dropout, attention_dropout=attention_dropout, drop_path=drop_path)
        _check(width, heads, mlp_ratio, cls_dropout, norm_eps)
        if grey_to_rgb and channels != 1:
            raise ConfigError(f"`grey_to_rgb` makes three channels of one, and `channels` is {channels}: leave one out")
        self.image_size, self.patch_size = _pair("image_size", image_size), _pair("patch_size", patch_size)
        try:
            self.grid = grid_of(self.image_size, self.patch_size)
        except InputError as error:
            raise ConfigError(str(error)) from error
        self.channels, self.distilled, self.inference = channels, distilled, inference
        self.cls_dropout, self.any_size = cls_dropout, any_size
        self.special = 2 if distilled else 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.special + self.grid[0] * self.grid[1], width))
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
            self.head_dist = nn.Linear(width, classes)
        self.grey: nn.Module = nn.Conv2d(1, 3, 1, bias=False) if grey_to_rgb else nn.Identity()
        self.patch_embed = PatchEmbed(3 if grey_to_rgb else channels, width, self.patch_size, conv_stem=conv_stem)
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                Block(
                    width,
                    heads,
                    int(width * mlp_ratio),
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    drop_path=rate,
                    norm_eps=norm_eps,
                )
                for rate in linear_rates(drop_path, depth)
            )
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(width, classes)
        self.apply(_initialize)
        for token in (self.cls_token, self.pos_embed, *([self.dist_token] if distilled else [])):
            nn.init.trunc_normal_(token, std=0.02)

    def cam_layer(self) -> nn.Module:
        """Return the module whose output shows the last patches that a score depends on."""
        last: Any = self.blocks[-1]
        norm: nn.Module = last.norm1
        return norm

    @property
    def depth(self) -> int:
        """How many layers `intermediates` can show."""
        return len(self.blocks)

    def forward(self, images: torch.Tensor) -> Any:
        """Return the scores of the classes; of a distilled one in training, those of both heads.

        Raises:
            InputError: The images are not what the model was made for.
        """
        return self._answer(self.norm(self.blocks(self._embed(images))))

    def intermediates(
        self, images: torch.Tensor, layers: Iterable[int] = (), *, normalize: bool = False, cls_only: bool = False
    ) -> Intermediates:
        """Return what `forward` does, and the tokens behind some blocks.

        Args:
            images: The images.
            layers: Which blocks; negative ones count from the end.
            normalize: Whether the final norm is applied to them too; else they are the stream as the next block has it.
            cls_only: Whether only the class token of each is wanted, (batch, 1, width), instead of the patches.

        Raises:
            InputError: There is no such block, or the images are not what the model was made for.
        """
        places = wanted(layers, len(self.blocks))
        keep = set(places.values())
        tokens, behind = self._embed(images), {}
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in keep:
                behind[index] = tokens
        final = self.norm(tokens)
        shown = {}
        for layer, at in places.items():
            found = self.norm(behind[at]) if normalize else behind[at]
            shown[layer] = found[:, :1] if cls_only else found[:, self.special :]
        return Intermediates(self._answer(final), shown, final[:, self.special :])

    def attention(self, images: torch.Tensor, layers: Iterable[int] | None = None) -> dict[int, torch.Tensor]:
        """Return the weights of the attention, (batch, heads, tokens, tokens), of some blocks or all.

        Args:
            images: The images.
            layers: Which blocks; all by default.

        Raises:
            InputError: There is no such block, or the images are not what the model was made for.
        """
        places = wanted(range(len(self.blocks)) if layers is None else layers, len(self.blocks))
        keep = set(places.values())
        tokens, found = self._embed(images), {}
        blocks: Iterable[Any] = self.blocks
        for index, block in enumerate(blocks):
            if index in keep:
                found[index] = block.attn.weights(block.norm1(tokens))
            tokens = block(tokens)
        return {layer: found[at] for layer, at in places.items()}

    def fitted(self, state: Mapping[str, torch.Tensor], *, antialias: bool = False) -> dict[str, torch.Tensor]:
        """Return weights of the same model for another image size as ones for this: positions are interpolated.

            model.load_state_dict(model.fitted(torch.load(path, weights_only=True)))

        Raises:
            InputError: There are no positions among them, or they lie on no square.
        """
        if "pos_embed" not in state:
            raise InputError("`state` has no `pos_embed`: pass the weights of a vision transformer")
        positions = interpolate_positions(state["pos_embed"], self.grid, special=self.special, antialias=antialias)
        return {**state, "pos_embed": positions}

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise InputError(
                f"`images` has shape {tuple(images.shape)}: pass (batch, {self.channels}, height, width), "
                "or make the model with the `channels` of the images"
            )
        size = (images.shape[2], images.shape[3])
        positions: torch.Tensor = self.pos_embed
        if size != self.image_size:
            if not self.any_size:
                raise InputError(
                    f"`images` are {size[0]} x {size[1]} and the model was made for {self.image_size[0]} x "
                    f"{self.image_size[1]}: resize them, or make it with `any_size=True`"
                )
            grid = grid_of(size, self.patch_size)
            positions = interpolate_positions(positions, grid, special=self.special, source=self.grid)
        patches = self.patch_embed(self.grey(images))
        special = [self.cls_token, self.dist_token] if self.distilled else [self.cls_token]
        tokens = torch.cat([*(token.expand(len(patches), -1, -1) for token in special), patches], dim=1)
        embedded: torch.Tensor = self.pos_drop(tokens + positions)
        return embedded

    def _answer(self, tokens: torch.Tensor) -> Any:
        """Return the scores from the tokens behind the final norm: the one path of every forward."""
        cls = tokens[:, 0]
        if self.training and self.cls_dropout > 0.0:
            dropped = torch.rand(len(cls), 1, device=cls.device) < self.cls_dropout
            cls = torch.where(dropped, tokens[:, self.special :].mean(1), cls)
        scores = self.head(cls)
        if not self.distilled:
            return scores
        taught: torch.Tensor = self.head_dist(tokens[:, 1])
        if self.training:
            return scores, taught
        if self.inference == "cls":
            return scores
        return taught if self.inference == "dist" else (scores + taught) / 2

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that weight decay only harms."""
        return {"cls_token", "dist_token", "pos_embed"}


def grid_of(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns of patches an image has.

    Raises:
        InputError: They do not cover it.
    """
    if size[0] % patch[0] or size[1] % patch[1]:
        raise InputError(
            f"an image of {size[0]} x {size[1]} is not covered by patches of {patch[0]} x {patch[1]}: "
            "its border would be lost; use a size that they divide"
        )
    return size[0] // patch[0], size[1] // patch[1]


def _check(width: int, heads: int, mlp_ratio: float, cls_dropout: float, norm_eps: float) -> None:
    if width % heads or width % 2:
        raise ConfigError(f"`width` is {width} and `heads` is {heads}: pass an even width that the heads divide")
    if not mlp_ratio > 0 or int(width * mlp_ratio) < 1:
        raise ConfigError(f"`mlp_ratio` is {mlp_ratio!r}: pass a number above 0 that leaves at least one unit")
    if not 0 <= cls_dropout <= 1:
        raise ConfigError(f"`cls_dropout` is {cls_dropout!r}: pass a probability, from 0 to 1")
    if not norm_eps > 0:
        raise ConfigError(f"`norm_eps` is {norm_eps!r}: pass a number above 0")


def _pair(name: str, size: Size) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2:
        raise ConfigError(f"`{name}` is {size!r}: pass one whole number, or height and width")
    for side in pair:
        whole(**{name: side})
    return pair[0], pair[1]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
