"""The data set that comes with this package, for a first run without a download."""

from mezo.tasks.base import PackagedDataset
from mezo.tasks.sst2 import SST2

# Short reviews in the form of SST-2, and so with its templates.
DEMO = SST2(name="demo", home=PackagedDataset("demo"))
