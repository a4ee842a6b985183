"""Attribute predictions of a network to modalities, image places and words.

The modalities are image, text and descriptors, as far as the network reads them. An absent modality
is replaced by that of each background material in turn; the value of a coalition is the mean over
these predictions (interventional Shapley values; Janzing et al. 2020, arXiv:1910.13413).

Attributions within one modality keep the material's other modalities. Words are attributed by
integrated gradients, starting from masks in place of the words. Image places are attributed by
sampled Shapley values of squares (Castro, Gómez, Tejada 2009, doi:10.1016/j.cor.2008.04.004),
computed with Captum and starting from the mean image of the background. Integrated gradients are
unsuitable for images: along a line between two images, the gradients of a convolutional network
vary so strongly that their integral misses the prediction and often its sign. A prediction is the
mean over rotated images and reworded texts. Attributions refer to the unrotated image, and to words
irrespective of their position.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..inputs.tensors import Inputs
from ..inputs.text.rewording import reword
from ..networks.backbones import ClipBackbone, TextEncoder
from ..networks.modules import Network
from ..networks.recipe import Recipe
from .gradients import AT_ONCE, integrated_gradients
from .shapley import shapley_values
from .words import assign_tokens, count_words

PLAYERS = {
    "image": "slices of the charge density",
    "text": "the description of the crystal in words",
    "descriptors": "numbers that describe the crystal",
}

SQUARES = 4
"""Squares along the side of an image; the pixels of a square are removed together."""

GRIDS = 8
"""Number of grids of squares; each is randomly shifted and has its own order of removal.

A map is the mean over the grids.
"""

TENSORS = {
    "image": ("image",),
    "text": ("input_ids", "attention_mask"),
    "descriptors": ("descriptors",),
}
"""Modality → names of its inputs in :meth:`rhosight.inputs.tensors.Inputs.batch`."""


class NetworkAttributions:
    """Attributions of a network, in units of the targets' standard deviations.

    Parameters
    ----------
    network, recipe
        Network and recipe of the fitted model.
    background
        Inputs of the background materials, which replace absent modalities.
    """

    def __init__(self, network: Network, recipe: Recipe, background: Inputs):
        self.network = network.eval()
        self.recipe = recipe
        self.views = range(recipe.views)
        self._functions = network.modality_features
        self._device = next(network.parameters()).device
        self._count = len(background)
        self._others = self.features(background)
        self.mean_canvas = torch.empty(0)
        """Mean image of the background with its margin, shape (1, 3, s, s), if images are read."""
        if "image" in self._functions:
            self.mean_canvas = _canvas(background).mean(dim=0, keepdim=True)

    def __len__(self) -> int:
        return self._count

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the network reads."""
        return tuple(self._functions)

    def features(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return modality → features of n materials, shape (views, n, width)."""
        with torch.no_grad():
            return {name: self._features(inputs, name) for name in self._functions}

    def shares(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return base, shape (targets,), and Shapley values, shape (modalities, targets)."""
        own = self.features(inputs)

        def value(some: Collection[str]) -> np.ndarray:
            parts = {
                name: own[name].expand(-1, self._count, -1) if name in some else others
                for name, others in self._others.items()
            }
            with torch.no_grad():
                return self._mean_output(parts).mean(dim=0).numpy()

        return shapley_values(value, self.modalities)

    @torch.no_grad()
    def pixels(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the attributions of the pixels of one material's image.

        The Shapley value of a square is distributed evenly over its pixels. The random draws have a
        fixed seed, so the same image always has the same attributions.

        Returns
        -------
        attributions, shape (targets, 3, s, s), of the image with the margin that rotated views
        read; start, shape (targets,): the prediction for the mean image; gap, shape (targets,): the
        change of the prediction minus the sum of the attributions.
        """
        from captum.attr import ShapleyValueSampling

        rest = {k: v for k, v in self.features(inputs).items() if k != "image"}
        canvas = _canvas(inputs)
        method = ShapleyValueSampling(lambda images: self._predict_images(inputs, images, rest))
        grids = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(GRIDS):
                grid = self._squares(canvas.shape[-1])
                area = grid.flatten().bincount()[grid]
                values = method.attribute(
                    canvas,
                    self.mean_canvas,
                    feature_mask=grid,
                    n_samples=1,
                    perturbations_per_eval=AT_ONCE,
                )
                grids.append((values[0] / area).numpy())
        attributions = np.mean(grids, axis=0)
        ends = torch.cat([self.mean_canvas, canvas])
        start, end = self._predict_images(inputs, ends, rest).numpy()
        return attributions, start, end - start - attributions.sum(axis=(1, 2, 3), dtype=float)

    def _squares(self, side: int) -> Tensor:
        """Return each pixel's square on a shifted grid, shape (1, 3, side, side).

        Channels of different slices have separate squares.
        """
        square = max(1, self.recipe.image.settings.size // SQUARES)
        one = square_grid(side, square, torch.randint(square, (2,)).tolist())
        are_separate = self.recipe.image.settings.colour == "channels"
        step = are_separate * (int(one.max()) + 1)
        return torch.stack([one + layer * step for layer in range(3)])[None]

    def _predict_images(self, inputs: Inputs, canvas: Tensor, rest: Mapping[str, Tensor]) -> Tensor:
        """Return predictions, shape (m, targets), for m canvases of one material.

        ``rest`` are the features of its other modalities. The canvases of its parallel planes,
        which some views read, stay unchanged.
        """
        parallel = inputs.parallel
        if parallel is not None:
            parallel = parallel.expand(-1, len(canvas), -1, -1, -1)
        shown = replace(inputs, canvas=canvas, parallel=parallel)
        parts = {"image": self._features(shown, "image")}
        return self._mean_output(
            parts | {name: f.expand(-1, len(canvas), -1) for name, f in rest.items()}
        )

    def predict_without_pixels(self, inputs: Inputs, missing: Tensor) -> np.ndarray:
        """Return predictions for one material's image with some pixels of the mean image.

        ``missing``, shape (m, 3, s, s), is true for the replaced pixels of each of m variants.
        Returns shape (m, targets).
        """
        rest = {k: v for k, v in self.features(inputs).items() if k != "image"}
        canvas = _canvas(inputs)
        with torch.no_grad():
            predictions = [
                self._predict_images(inputs, torch.where(some, self.mean_canvas, canvas), rest)
                for some in missing.split(AT_ONCE)
            ]
        return torch.cat(predictions).numpy()

    def words(
        self, inputs: Inputs, text: str
    ) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Return the attributions of the words of one material's text.

        Returns
        -------
        w words; attributions, shape (targets, w), summed over all occurrences of a word; start and
        gap, shape (targets,), see :func:`.gradients.integrated_gradients`.
        """
        names = list(count_words(text))
        rest = {k: v for k, v in self.features(inputs).items() if k != "text"}
        results = []

        def forward(ids: Tensor, mask: Tensor, *others: Tensor) -> Tensor:
            parts = dict(zip(rest, others, strict=True))
            return self._output(parts | {"text": self._functions["text"](ids, mask)})

        for view in self.views:
            ids, mask, shares = self._tokens(inputs, text, names, view)
            own = [features[view] for features in rest.values()]
            attributions, start, gap = integrated_gradients(
                forward,
                ids,
                self._mask(ids, np.any(shares, axis=1)),
                len(self.recipe.targets),
                (mask, *own),
                self._embedding,
            )
            results.append((attributions.sum(axis=-1) @ shares, start, gap))
        attributions, start, gap = (np.mean(part, axis=0) for part in zip(*results, strict=True))
        return names, attributions, start, gap

    def predict_without_words(self, inputs: Inputs, text: str, missing: np.ndarray) -> np.ndarray:
        """Return predictions for one material's text with masks in place of some words.

        ``missing``, shape (m, w), is true for the masked words of each of m variants, in the order
        of :meth:`words`. Returns shape (m, targets).
        """
        names = list(count_words(text))
        others = {k: v for k, v in self.features(inputs).items() if k != "text"}
        views = []
        for view in self.views:
            ids, mask, shares = self._tokens(inputs, text, names, view)
            hidden = missing @ shares.T >= 0.5
            variants = torch.cat([self._mask(ids, row) for row in hidden])
            masks = mask.expand(len(variants), -1)
            with torch.no_grad():
                pairs = zip(variants.split(AT_ONCE), masks.split(AT_ONCE), strict=True)
                features = torch.cat([self._functions["text"](*pair) for pair in pairs])
                parts = {k: v[view].expand(len(variants), -1) for k, v in others.items()}
                views.append(self._output(parts | {"text": features}))
        return torch.stack(views).mean(dim=0).cpu().numpy()

    def _features(self, inputs: Inputs, modality: str) -> Tensor:
        """Return the features of one modality, shape (views, n, width)."""
        function = self._functions[modality]
        views = []
        for view in self.views:
            parts = [
                function(
                    *(t.to(self._device) for t in inputs.batch(TENSORS[modality], rows, view=view))
                )
                for rows in torch.arange(len(inputs)).split(AT_ONCE)
            ]
            views.append(torch.cat(parts))
        return torch.stack(views)

    def _output(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Apply the head to the features (n, width) of each modality."""
        return self.network.head(torch.cat([parts[name] for name in self._functions], dim=1))

    def _mean_output(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the mean output over views of features (views, n, width)."""
        views = [
            self._output({name: features[view] for name, features in parts.items()})
            for view in self.views
        ]
        return torch.stack(views).mean(dim=0).cpu()

    def _tokens(
        self, inputs: Inputs, text: str, words: list[str], view: int
    ) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return ids and mask of a wording, shape (1, t), and the words of its tokens."""
        ids, mask = inputs.batch(TENSORS["text"], torch.arange(1), view=view)
        assert inputs.input_ids is not None, "the network reads text"
        wording = reword(text, view % len(inputs.input_ids))
        encoder = self._reader
        spans = encoder.tokenizer(
            wording,
            truncation=True,
            padding="max_length",
            max_length=ids.shape[1],  # a recipe may read fewer tokens than the encoder
            return_offsets_mapping=True,
        )["offset_mapping"]
        return ids.to(self._device), mask.to(self._device), assign_tokens(wording, spans, words)

    def _mask(self, ids: Tensor, hidden: np.ndarray) -> Tensor:
        """Return token ids, shape (1, t), with masks in place of the hidden tokens."""
        tokenizer = self._reader.tokenizer
        blank = tokenizer.mask_token_id
        if blank is None:  # CLIP has no mask token
            blank = tokenizer.pad_token_id
        return ids.masked_fill(torch.as_tensor(hidden, device=ids.device)[None], blank)

    @property
    def _reader(self) -> TextEncoder:
        """Encoder that tokenises the network's texts."""
        reader = self.network.reader
        assert reader is not None, "the network reads text"
        return reader

    @property
    def _embedding(self) -> nn.Module:
        """Layer that maps token ids to vectors."""
        encoder = self._reader
        if isinstance(encoder, ClipBackbone):
            return encoder.model.text_model.embeddings.token_embedding
        return encoder.model.get_input_embeddings()


def square_grid(side: int, size: int, shift: Sequence[int] = (0, 0)) -> Tensor:
    """Return the number of the square that contains each pixel, shape (side, side).

    The squares have ``size`` pixels along a side. The grid starts ``shift`` pixels before the
    image. Squares are numbered from 0 without gaps.
    """
    rows, columns = ((torch.arange(side) + start) // size for start in shift)
    return rows[:, None] * (int(columns.max()) + 1) + columns


def _canvas(inputs: Inputs) -> Tensor:
    """Return the images with their margin as 32-bit numbers."""
    assert inputs.canvas is not None, "the network reads images"
    return inputs.canvas.float()
