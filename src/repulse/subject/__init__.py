"""What is measured: a model, its images, and where what is found about them is kept."""

from repulse.subject.journal import Journal
from repulse.subject.subject import About, Progress, Subject

__all__ = ["About", "Journal", "Progress", "Subject"]
