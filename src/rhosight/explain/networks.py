"""Explanations of a network.

The modalities are image, text and descriptors, as far as the network reads them. An absent one is
that of another material, one of the background at a time, and the value of a coalition is the mean
over all of these (interventional Shapley values; Janzing et al. 2020, arXiv:1910.13413).

Within a modality the other one is the material's own. Which words matter is told by integrated
gradients, from masks in place of the words. Which parts of the image matter is told by Shapley
values of squares, sampled (Castro, Gómez, Tejada 2009, doi:10.1016/j.cor.2008.04.004) by Captum,
from the mean image of the background: along a line between two images the gradients of a
convolutional network jump so much that their integral misses the prediction, and often its sign. A
prediction is the mean over turned images and reworded texts; attributions are to the image before
it is turned and to words wherever they stand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..inputs.tensors import Inputs
from ..inputs.text.rewording import reword
from ..networks.backbones import ClipBackbone
from ..networks.modules import modality_features, reader
from ..networks.recipe import Recipe
from ..training.stages import view_count
from .gradients import AT_ONCE, integrated_gradients
from .shapley import shapley_values
from .words import word_counts, word_shares

PLAYERS = {
    "image": "slices of the charge density",
    "text": "the description of the crystal in words",
    "descriptors": "numbers that describe the crystal",
}

SQUARES = 4
"""Along an image's side; the pixels of one are taken away together."""

GRIDS = 8
"""Of squares, each shifted at random and taken away in an order of its own; a map is their mean."""

TENSORS = {
    "image": ("image",),
    "text": ("input_ids", "attention_mask"),
    "descriptors": ("descriptors",),
}
"""Modality → what :meth:`rhosight.inputs.tensors.Inputs.batch` calls its inputs."""


class NetworkExplainer:
    """A network taken apart where its modalities meet. Numbers are standardised, as its outputs.

    Parameters
    ----------
    network, recipe
        Of the fitted model.
    background
        Inputs of the materials that absent modalities are taken from.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, background: Inputs):
        self.network = network.eval()
        self.recipe = recipe
        self.views = range(view_count(recipe))
        self._functions = modality_features(network)
        self._device = next(network.parameters()).device
        self._count = len(background)
        self._others = self.features(background)
        self.mean_canvas = None
        """Mean image of the background with its margin, shape (1, 3, s, s)."""
        if "image" in self._functions:
            self.mean_canvas = background.canvas.float().mean(dim=0, keepdim=True)

    def __len__(self) -> int:
        return self._count

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self._functions)

    def features(self, inputs: Inputs) -> dict[str, Tensor]:
        """Modality → what the network makes of it for n materials, shape (views, n, width)."""
        with torch.no_grad():
            return {name: self._features(inputs, name) for name in self._functions}

    def shares(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Base, shape (targets,), and Shapley values, (modalities, targets), of one material."""
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
        """What each pixel of one material's image adds: its part of the squares that it is in.

        Returns
        -------
        attributions, shape (targets, 3, s, s), of the image with the margin that turned views look
        at; start, shape (targets,): the prediction for the mean image; gap, shape (targets,): the
        change of the prediction less the sum of the attributions. The same image has the same.
        """
        from captum.attr import ShapleyValueSampling

        rest = {k: v for k, v in self.features(inputs).items() if k != "image"}
        canvas = inputs.canvas.float()
        method = ShapleyValueSampling(lambda images: self._predict_images(inputs, images, rest))
        found = []
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
                found.append((values[0] / area).numpy())
        attributions = np.mean(found, axis=0)
        ends = torch.cat([self.mean_canvas, canvas])
        start, end = self._predict_images(inputs, ends, rest).numpy()
        return attributions, start, end - start - attributions.sum(axis=(1, 2, 3), dtype=float)

    def _squares(self, side: int) -> Tensor:
        """The number of each pixel's square, shape (1, 3, side, side), on a grid shifted at random.

        Channels that show different slices are taken apart.
        """
        square = max(1, self.recipe.image.size // SQUARES)
        one = squares(side, square, torch.randint(square, (2,)).tolist())
        apart = self.recipe.image.colour == "channels"
        return torch.stack([one + apart * layer * (int(one.max()) + 1) for layer in range(3)])[None]

    def _predict_images(self, inputs: Inputs, canvas: Tensor, rest: Mapping[str, Tensor]) -> Tensor:
        """Predictions (m, targets) for m canvases beside the other features of one material; its
        parallel planes, that some views look at, stay as they are.
        """
        parallel = inputs.parallel
        if parallel is not None:
            parallel = parallel.expand(-1, len(canvas), -1, -1, -1)
        shown = replace(inputs, canvas=canvas, parallel=parallel)
        parts = {"image": self._features(shown, "image")}
        return self._mean_output(
            parts | {name: f.expand(-1, len(canvas), -1) for name, f in rest.items()}
        )

    def predict_images_without(self, inputs: Inputs, gone: Tensor) -> np.ndarray:
        """Predictions for one material's image with the mean image in place of some pixels.

        ``gone``, shape (m, 3, s, s): which pixels are not there in each of m variants. Returns
        shape (m, targets).
        """
        rest = {k: v for k, v in self.features(inputs).items() if k != "image"}
        canvas = inputs.canvas.float()
        with torch.no_grad():
            found = [
                self._predict_images(inputs, torch.where(some, self.mean_canvas, canvas), rest)
                for some in gone.split(AT_ONCE)
            ]
        return torch.cat(found).numpy()

    def words(
        self, inputs: Inputs, text: str
    ) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """What each word of one material's text adds, wherever it stands.

        Returns
        -------
        w words; attributions, shape (targets, w); start and gap, shape (targets,), of
        :func:`.gradients.integrated_gradients`.
        """
        names = list(word_counts(text))
        rest = {k: v for k, v in self.features(inputs).items() if k != "text"}
        found = []

        def forward(ids: Tensor, mask: Tensor, *others: Tensor) -> Tensor:
            parts = dict(zip(rest, others, strict=True))
            return self._output(parts | {"text": self._functions["text"](ids, mask)})

        for view in self.views:
            ids, mask, shares = self._tokens(inputs, text, names, view)
            own = [features[view] for features in rest.values()]
            attributions, start, gap = integrated_gradients(
                forward,
                ids,
                self._masked(ids, shares.any(axis=1)),
                len(self.recipe.targets),
                (mask, *own),
                self._embedding,
            )
            found.append((attributions.sum(axis=-1) @ shares, start, gap))
        attributions, start, gap = (np.mean(part, axis=0) for part in zip(*found, strict=True))
        return names, attributions, start, gap

    def predict_without(self, inputs: Inputs, text: str, gone: np.ndarray) -> np.ndarray:
        """Predictions for one material's text with masks in place of some words.

        ``gone``, shape (m, w): which of the w words of the text, in the order of :meth:`words`, are
        not there in each of m variants. Returns shape (m, targets).
        """
        names = list(word_counts(text))
        others = {k: v for k, v in self.features(inputs).items() if k != "text"}
        views = []
        for view in self.views:
            ids, mask, shares = self._tokens(inputs, text, names, view)
            hidden = gone @ shares.T >= 0.5
            variants = torch.cat([self._masked(ids, row) for row in hidden])
            masks = mask.expand(len(variants), -1)
            with torch.no_grad():
                pairs = zip(variants.split(AT_ONCE), masks.split(AT_ONCE), strict=True)
                features = torch.cat([self._functions["text"](*pair) for pair in pairs])
                parts = {k: v[view].expand(len(variants), -1) for k, v in others.items()}
                views.append(self._output(parts | {"text": features}))
        return torch.stack(views).mean(dim=0).cpu().numpy()

    def _features(self, inputs: Inputs, modality: str) -> Tensor:
        """Shape (views, n, width)."""
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
        """The head over features (n, width) of each modality, in the network's order."""
        return self.network.head(torch.cat([parts[name] for name in self._functions], dim=1))

    def _mean_output(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Mean over the views, shape (n, targets), for features (views, n, width)."""
        views = [
            self._output({name: features[view] for name, features in parts.items()})
            for view in self.views
        ]
        return torch.stack(views).mean(dim=0).cpu()

    def _tokens(
        self, inputs: Inputs, text: str, words: list[str], view: int
    ) -> tuple[Tensor, Tensor, np.ndarray]:
        """Ids and mask, shape (1, t), of a wording, and which word each token belongs to."""
        ids, mask = inputs.batch(TENSORS["text"], torch.arange(1), view=view)
        said = reword(text, view % len(inputs.input_ids))
        encoder = reader(self.network)
        spans = encoder.tokenizer(
            said,
            truncation=True,
            padding="max_length",
            max_length=ids.shape[1],  # as the network was given it: a recipe may read fewer
            return_offsets_mapping=True,
        )["offset_mapping"]
        return ids.to(self._device), mask.to(self._device), word_shares(said, spans, words)

    def _masked(self, ids: Tensor, hidden: np.ndarray) -> Tensor:
        """Token ids (1, t) with masks in place of the hidden ones."""
        tokenizer = reader(self.network).tokenizer
        blank = tokenizer.mask_token_id
        if blank is None:  # CLIP was never shown masks
            blank = tokenizer.pad_token_id
        return ids.masked_fill(torch.as_tensor(hidden, device=ids.device)[None], blank)

    @property
    def _embedding(self) -> nn.Module:
        """The layer that makes vectors of token ids."""
        encoder = reader(self.network)
        if isinstance(encoder, ClipBackbone):
            return encoder.model.text_model.embeddings.token_embedding
        return encoder.model.get_input_embeddings()


def squares(side: int, size: int, shift: Sequence[int] = (0, 0)) -> Tensor:
    """The number of each pixel's square on a grid of squares of ``size`` pixels, which begins
    ``shift`` pixels before the image: shape (side, side), counted from 0, none left out.
    """
    rows, columns = ((torch.arange(side) + start) // size for start in shift)
    return rows[:, None] * (int(columns.max()) + 1) + columns
