"""Images as data: read from files of the usual kinds, checked, and turned into what a model reads.

Pixels are bytes ``[image row column channel]``, with one channel (grey) or three (RGB). Nothing is
resized, cropped or turned grey unless that is asked for.
"""

from mudd_interp.images.bundled import BUNDLED_IMAGES as BUNDLED_IMAGES
from mudd_interp.images.bundled import bundled_images as bundled_images
from mudd_interp.images.folders import FASHION_MNIST as FASHION_MNIST
from mudd_interp.images.folders import Split as Split
from mudd_interp.images.folders import read_split as read_split
from mudd_interp.images.image_set import ImageSet as ImageSet
from mudd_interp.images.image_set import model_input as model_input
from mudd_interp.images.read import read_images as read_images
