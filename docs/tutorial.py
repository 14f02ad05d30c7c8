# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Tutorial: how robust is it, and how sure is that?
#
# Half a minute on handwritten digits, from prototypes to a figure that you may quote. The source of this page is
# `docs/tutorial.py`, which Jupyter opens as a notebook with jupytext; what is printed below was printed when these
# pages were built.
#
# ## Images and prototypes
#
# Images come as bytes, and everything works on pixels in [0, 1]. A prototype is the place of a class in the output
# space. Ten classes in nine dimensions can be equally far apart: they make a regular simplex, every angle of which has
# the cosine -1/9.

# %%
from repulse import load_data, make_prototypes, measure

digits = load_data("digits")
prototypes = make_prototypes("simplex", 10, 9)
for name, value, bound, *_ in measure(prototypes.points).rows():
    print(f"{name}: {value:.4g}, at best {bound:.4g}")

# %% [markdown]
# ## Train, without a defence
#
# A run is a folder: configuration, weights, metrics, prototypes. A preset is a whole method, and settings change it.
# The same from a terminal: `repulse train --preset simplex --fit.epochs 4 --output runs/plain`.

# %%
from repulse import train_run
from repulse.common.settings import merge
from repulse.config.presets import preset

fit = {"epochs": 4, "batch_size": 64, "accelerator": "cpu", "devices": "1"}
plain = merge(preset("simplex"), {"fit": fit}, "tutorial")
model = train_run(plain, "runs/plain")

# %% [markdown]
# ## Attack it
#
# An image counts as robust only if no attack fooled it. The quick attacks take a few seconds here; the usual ones are
# those of AutoAttack. The verdict answers both questions, and where it is not sure it says what to run next.

# %%
from repulse import EvaluationSettings, evaluate_run

how = EvaluationSettings(eps=0.1, attacks="quick", curve=())
found = evaluate_run("runs/plain", how, images=60)
verdict = found.record.verdict
print(f"natural accuracy {found.record.natural_accuracy:.1%}, robust accuracy {verdict.quote:.1%}: {verdict.word}")
print(verdict.summary, *verdict.next_steps[:1], sep="\n")

# %% [markdown]
# ## Train it to be robust
#
# The recipe `n-fgsm` makes an adversarial image of each training image, in one step, and costs two to three times a
# plain epoch. Nothing else changes.

# %%
robust = merge(plain, {"recipe": {"name": "n-fgsm", "eps": 0.1}, "fit": {"epochs": 10}}, "tutorial")
train_run(robust, "runs/robust")
again = evaluate_run("runs/robust", how, images=60)
print(f"before: {found.record.verdict.quote:.1%}, after: {again.record.verdict.quote:.1%}")

# %% [markdown]
# ## Show it
#
# One page for both, which opens anywhere; Markdown and JSON lie beside it.

# %%
from repulse import write_report

print(write_report(["runs/plain", "runs/robust"], "report.html").html)

# %% [markdown]
# ## Your own model
#
# Any module from images in [0, 1] to logits will do, whoever trained it, with its normalisation inside.

# %%
import torch
from torch import nn

from repulse import evaluate

torch.manual_seed(0)
mine = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
x, y = digits.train.images.float() / 255, digits.train.labels
optimiser = torch.optim.Adam(mine.parameters(), lr=0.01)
for _ in range(100):
    loss = nn.functional.cross_entropy(mine(x), y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
test = digits.test
print(evaluate(mine, test.images[:60] / 255, test.labels[:60], how).record.verdict.summary)

# %% [markdown]
# ## Where to go on
#
# - [Your own images](../own-images.md), [your own model](../own-model.md).
# - [How to read the verdict](../how-to-read-the-verdict.md), [how to read a report](../reading-a-report.md).
# - [A proof instead of an attack](../certificates.md).
# - [Examples](examples.md) with a training loop of your own, with Lightning, with Hugging Face.
