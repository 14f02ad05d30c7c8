"""The sections of an evaluation, in the order in which a page shows them. A new one is a file here, and a line here."""

# ruff: noqa: F401, I001 - importing a file registers its section, and the order is that of the page.
from repulse.report.sections import attacks
from repulse.report.sections import checks
from repulse.report.sections import curve
from repulse.report.sections import ladder
from repulse.report.sections import slices
from repulse.report.sections import confusion
from repulse.report.sections import gallery
from repulse.report.sections import prototypes
from repulse.report.sections import embedding
from repulse.report.sections import training
from repulse.report.sections import cost
from repulse.report.sections import provenance
