"""Compare our Gaussian process with scikit-learn and GPyTorch.

    python benchmarks/gaussian_process_libraries.py [--sizes 277 1000] [--target 0]

The script compares time, memory, likelihood and error. All models have the full kernel of `best`,
its prior, normal noise, and the same starting values. The materials are the training set of the
bundled model `best`: four fifths are used for training and one fifth for prediction. For larger
sizes, the features are drawn from a normal distribution and the labels come from a known function.
Each library runs in a separate process. The table gives ratios to rhosight. GPyTorch is skipped if
it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

import rhosight
from rhosight.models.gaussian_process.kernel import JITTER, KernelFunction, mean_squares
from rhosight.models.gaussian_process.posterior import LARGEST_LOG, _Posterior

STEPS = 40


def make_problem(
    size: int, target: int
) -> tuple[KernelFunction, dict, np.ndarray, dict, np.ndarray]:
    """Return the kernel, and features and labels for training and prediction."""
    process = rhosight.load_model("best").special.process.members[1]
    fitted = process._targets[target]
    features = {name: table[fitted.rows] for name, table in process.training_features.items()}
    labels, rng = fitted.labels, np.random.default_rng(0)
    learn = rng.permutation(len(labels)) % 5 > 0
    if size > learn.sum():
        rows = size * 5 // 4
        features = {k: rng.normal(size=(rows, v.shape[1])) for k, v in features.items()}
        labels = sum(np.sin(table[:, 0]) for table in features.values() if table.shape[1])
        labels = (labels - labels.mean()) / labels.std() + 0.1 * rng.normal(size=rows)
        learn = np.arange(rows) < size
    parts = [{k: v[some] for k, v in features.items()} for some in (learn, ~learn)]
    return process.kernel, parts[0], labels[learn], parts[1], labels[~learn]


def climb(loss, kernel: KernelFunction, steps: int):
    centre, _ = kernel.prior()
    bounds = [(-LARGEST_LOG, LARGEST_LOG)] * len(centre)
    options = {"maxiter": steps}
    return minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options)


def with_prior(kernel: KernelFunction, likelihood):
    """Return the negative log posterior from a negative log marginal likelihood."""
    centre, width = kernel.prior()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = likelihood(parameters)
        away = (parameters - centre) / width
        return value + away @ away / 2, gradient + away / width

    return loss


def solve(kernel: KernelFunction, parameters, known, labels, new) -> np.ndarray:
    """Predict with learned hyperparameters."""
    own = {name: mean_squares(known[name], known[name]) for name in kernel.blocks}
    cross = {name: mean_squares(new[name], known[name]) for name in kernel.blocks}
    noise = np.exp(parameters[-1]) + JITTER
    factor = cho_factor(kernel(parameters, own) + noise * np.eye(len(labels)), lower=True)
    return kernel(parameters, cross) @ cho_solve(factor, labels)


def ours(kernel: KernelFunction, known, labels):
    """Return the loss."""
    return _Posterior(kernel, known, labels)


def scikit_learn(kernel: KernelFunction, known, labels):
    """Return the loss of a GaussianProcessRegressor with our own kernel object.

    The regressor needs the gradient of the kernel as one array (n, n, hyperparameters).
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Hyperparameter
    from sklearn.gaussian_process.kernels import Kernel as Base

    distances = {name: mean_squares(known[name], known[name]) for name in kernel.blocks}
    count = len(kernel.prior()[0])

    class Blocks(Base):
        def __init__(self, values=None):
            self.values = np.exp(kernel.prior()[0]) if values is None else values

        @property
        def hyperparameter_values(self):
            return Hyperparameter("values", "numeric", np.exp([[-8, 8]] * count), count)

        def __call__(self, X, Y=None, eval_gradient=False):
            log = self.theta
            total, parts = np.ones((len(X), len(X))), []
            gradient = np.zeros((len(X), len(X), count))
            for term, at, lengths, last in kernel.layout():
                weights = np.exp(-2 * log[lengths])
                r2 = sum(distances[n] * w for n, w in zip(term.blocks, weights, strict=True))
                if term.kind == "rbf":
                    slope = part = np.exp(log[at] - r2 / 2)
                else:
                    shape = np.exp(log[last])
                    u = r2 / (2 * shape)
                    part = np.exp(log[at] - shape * np.log1p(u))
                    slope = part / (1 + u)
                    gradient[..., last] = part * shape * (u / (1 + u) - np.log1p(u))
                total += part
                parts.append(part)
                gradient[..., at] = part
                for number, (name, weight) in enumerate(zip(term.blocks, weights, strict=True)):
                    gradient[..., lengths.start + number] = slope * distances[name] * weight
            noise = np.exp(log[-1])
            total[np.diag_indices(len(X))] += noise
            gradient[..., -1] = noise * np.eye(len(X))
            return (total, gradient) if eval_gradient else total

        def diag(self, X):
            return np.full(len(X), kernel.variance(self.theta) + np.exp(self.theta[-1]))

        def is_stationary(self):
            return True

    X = np.zeros((len(labels), 1))  # unused: the kernel stores the distances
    model = GaussianProcessRegressor(Blocks(), alpha=JITTER, optimizer=None).fit(X, labels)
    constant = len(labels) * np.log(2 * np.pi) / 2

    def likelihood(parameters):
        value, gradient = model.log_marginal_likelihood(parameters, eval_gradient=True)
        return -value - constant, -gradient

    return with_prior(kernel, likelihood)


def gpytorch(kernel: KernelFunction, known, labels):
    """Return the loss of an ExactGP, differentiated by PyTorch."""
    import gpytorch as gp
    import torch

    torch.set_default_dtype(torch.float64)
    distances = {
        name: torch.from_numpy(mean_squares(known[name], known[name])) for name in kernel.blocks
    }
    y = torch.from_numpy(labels)

    class Blocks(gp.kernels.Kernel):
        values = torch.from_numpy(kernel.prior()[0])

        def forward(self, x1, x2, diag=False, **params):
            matrix = kernel(self.values, distances, torch)
            return matrix.diagonal() if diag else matrix

    class Model(gp.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(torch.zeros(len(y), 1), y, likelihood)
            self.mean_module, self.covar_module = gp.means.ZeroMean(), Blocks()

        def forward(self, x):
            return gp.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    noise = gp.likelihoods.FixedNoiseGaussianLikelihood(torch.ones(len(y)))
    model = Model(noise).train()
    marginal = gp.mlls.ExactMarginalLogLikelihood(noise, model)
    constant = len(labels) * np.log(2 * np.pi) / 2

    def likelihood(parameters):
        leaves = torch.tensor(parameters, requires_grad=True)
        model.covar_module.values = leaves
        noise.noise_covar.noise = torch.exp(leaves[-1]) * torch.ones(len(y)) + JITTER
        # use Cholesky like the other libraries; by default GPyTorch iterates beyond 800 rows
        with (
            gp.settings.fast_computations(False, False, False),
            gp.settings.max_cholesky_size(9999),
        ):
            value = -marginal(model(model.train_inputs[0]), y) * len(y)
        value.backward()
        return value.item() - constant, leaves.grad.numpy()

    return with_prior(kernel, likelihood)


LIBRARIES = {"ours": ours, "scikit_learn": scikit_learn, "gpytorch": gpytorch}


def measure(library: str, size: int, target: int) -> dict[str, float]:
    kernel, known, labels, new, truth = make_problem(size, target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss = LIBRARIES[library](kernel, known, labels)
    start = kernel.prior()[0]
    value, gradient = loss(start)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        loss(start)
        seconds.append(time.process_time() - began)
    steps = STEPS if size < 600 else 0
    began = time.process_time()
    best = climb(loss, kernel, steps) if steps else None
    fit = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"loss": value, "slope": float(np.linalg.norm(gradient)), "evaluation": min(seconds)}
    found["extra_gb"] = (peak - before) / 1e6
    if best is not None:
        found |= {"fit": fit, "evaluations": best.nfev, "best": float(best.fun)}
        error = solve(kernel, best.x, known, labels, new) - truth
        found["rmse"] = float(np.sqrt(np.mean(error**2)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.target)))
        return
    for size in options.sizes:
        reference = None
        for library in LIBRARIES:
            if library == "gpytorch" and importlib.util.find_spec("gpytorch") is None:
                continue
            command = [sys.executable, __file__, "--one", library, str(size)]
            command += ["--target", str(options.target)]
            found = json.loads(subprocess.check_output(command).splitlines()[-1])
            reference = reference or found
            shown = ", ".join(
                f"{name} {value:.5g} (×{value / (reference[name] or np.nan):.3g})"
                for name, value in found.items()
            )
            print(f"n ≥ {size}, {library}: {shown}", flush=True)


if __name__ == "__main__":
    main()
