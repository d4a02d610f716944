"""Images with masks in folders, laid out as ADE20K is: `<path>/images/<split>/**/name.jpg` and
`<path>/annotations/<split>/**/name.png`, where a mask has the path of its image but for the suffix."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from PIL import Image

from s3_jax.buckets import BucketPath
from s3_jax.data.image_folder import SUFFIXES, FolderImages, Listing, list_folder
from s3_jax.data.sources import BadImage
from s3_jax.errors import S3Error, listed
from s3_jax.paths import any_path, printable
from s3_jax.segmentation.class_table import ClassTable, Meaning, OpenedMasks, meaning_of

# Those that keep every value as it was: writers of GIF number its palette anew, and Pillow scales PGM.
_FORMATS = ("PNG", "TIFF", "BMP")
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")  # of TIFF
# Pillow spreads grey of 2 and 4 bits over 0..255.
_SPREAD = {"L;2": 85, "L;4": 17}
_MODES = ("1", "L", "LA", "P", "PA", "I")  # and I;16 of either order of bytes


@dataclasses.dataclass(frozen=True, eq=False)
class MaskFolder:
    """The images of one split and their masks, by number; only their paths are held."""

    images: FolderImages
    masks: FolderImages  # in the same order
    meaning: Meaning

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """An image, read but not decoded, and its class map, uint8 (H, W): 0..C-1, and IGNORED where it does not count.

        EXIF orientation is ignored in both. Raises BadImage where one cannot be decoded or their sizes differ, and
        S3Error where a file is gone, and for a mask of a lossy format, or with a value or colour of no class.
        """
        image, _ = self.images[index]
        name = self.masks.name(index)
        try:
            mask, _ = self.masks[index]
            if mask.size != image.size:
                raise BadImage(f"it has {_spoken_size(mask)} pixels, and the image {_spoken_size(image)}")
            return image, class_map(mask, name, self.meaning)
        except BadImage as error:  # the reader tells the image's name
            raise BadImage(printable(f"its mask {name}: {error}")) from error

    def name(self, index: int) -> str:
        """The image's path."""
        return self.images.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels, from its header. Raises BadImage, and S3Error where it is gone."""
        image, _ = self.images[index]
        return image.height, image.width

    @property
    def identities(self) -> np.ndarray:
        """int64 (N,): see `FolderImages`; of the images, whatever their masks are."""
        return self.images.identities


def open_mask_folder(
    path: str,
    splits: Sequence[str],
    *,
    images: str = "images",
    masks: str = "annotations",
    table: ClassTable,
    zero_is_ignored: bool = False,
    ignored_value: int = 255,
) -> OpenedMasks:
    """The named splits below path/images and path/masks; see `meaning_of` for what their values and colours mean.

    Raises S3Error for classes that do not fit, a missing or empty folder, links that lead nowhere, an image without a
    mask or a mask without an image, and two images or two masks that differ in their suffix alone. No file is read.
    """
    meaning = meaning_of(table, zero_is_ignored=zero_is_ignored, ignored_value=ignored_value)
    opened = {split: _open_split(path, split, images, masks, meaning) for split in splits}
    return OpenedMasks(printable(os.path.basename(os.path.abspath(path))), meaning.table, opened)


def class_map(mask: Image.Image, name: str, meaning: Meaning) -> np.ndarray:
    """The classes of an opened mask, uint8 (H, W); `name` is for messages.

    Of a palette the indices count, of grey the values, of RGB the colours as the table lists them; alpha does not.
    Raises BadImage where it cannot be decoded, and S3Error as `MaskFolder` does.
    """
    name = printable(name)
    _refuse_lossy(mask, name)
    raw_mode = _raw_mode(mask)
    if mask.mode in ("RGB", "RGBA", "LA") and ";16" in raw_mode:  # Pillow would leave out half of the bits
        raise S3Error(f"{name} has 16 bits for each of several channels; save masks as grey, a palette, or 8-bit RGB")
    if mask.mode in ("RGB", "RGBA"):
        return _classes_of_colours(mask, name, meaning)
    if mask.mode not in _MODES and not mask.mode.startswith("I;16"):
        raise S3Error(f"{name} is a mask of mode {mask.mode}; expected a palette, grey of whole numbers, or RGB")
    values = _decoded(mask)
    values = values[..., 0] if values.ndim == 3 else values
    values = values.astype(np.uint8) if values.dtype == bool else values
    if mask.mode == "P" and meaning.colours is not None:
        _tell_other_palette(mask, np.unique(values), name, meaning)
    return _classes_of_values(values // _SPREAD[raw_mode] if raw_mode in _SPREAD else values, name, meaning)


def _tell_other_palette(mask: Image.Image, used: np.ndarray, name: str, meaning: Meaning) -> None:
    """Editors number the colours of a palette as they like, and may not mean the classes by their numbers."""
    palette = np.array(mask.getpalette(), np.int32).reshape(-1, 3)
    used = used[used < len(palette)]  # a file may have pixels of colours that it does not list
    palette = palette[used]
    by_colour, unknown = meaning.colours.look_up((palette << (16, 8, 0)).sum(1))  # type: ignore[union-attr]
    by_number, _ = meaning.values.look_up(used)
    if (~unknown & (by_colour != by_number)).any():
        logging.log_first_n(
            logging.WARNING,
            "%s has colours of the class table in its palette, at the numbers of other classes: the numbers count. If "
            "the colours are meant, save masks as RGB (said once)",
            1,
            name,
        )


def _refuse_lossy(mask: Image.Image, name: str) -> None:
    if mask.format not in _FORMATS:
        lossy = ", which is lossy: its values may be others than were saved" if mask.format in _LOSSY_FORMATS else ""
        raise S3Error(
            f"{name} is a file of {mask.format}{lossy}; make masks anew as PNG (or {', '.join(_FORMATS[1:])})"
        )
    if mask.info.get("compression") in _LOSSY_COMPRESSIONS:
        raise S3Error(
            f"{name} has {mask.info['compression']} compression, which is lossy: its values may be others than were "
            "saved; make masks anew as PNG"
        )


def _raw_mode(mask: Image.Image) -> str:
    """How the pixels of a mask that is not yet decoded lie in its file, in Pillow's words."""
    tiles = getattr(mask, "tile", None)  # files have them
    arguments = tiles[0][3] if tiles else None
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _decoded(mask: Image.Image) -> np.ndarray:
    try:
        mask.load()
        return np.asarray(mask)
    except Exception as error:  # of any kind, as in `decode`
        raise BadImage(f"damaged image: {error or type(error).__name__}") from error


def _classes_of_values(values: np.ndarray, name: str, meaning: Meaning) -> np.ndarray:
    classes, unknown = meaning.values.look_up(values)
    if unknown.any():
        value, where = _most(values[unknown], "values")
        raise S3Error(
            f"{name} has the value {value} at {where}, but the {len(meaning.table.names)} classes of the class table "
            f"have {_spoken_values(meaning.table)}, and ignored are {listed(map(str, meaning.ignored))}: add its class "
            "to the table, or have it ignored"
        )
    return classes


def _classes_of_colours(mask: Image.Image, name: str, meaning: Meaning) -> np.ndarray:
    if meaning.colours is None:
        raise S3Error(
            f"{name} is a mask of colours ({mask.mode}), and the class table lists none: write the colour of each "
            "class on its line, as `number name r g b`, or save masks as grey with the classes' numbers"
        )
    red, green, blue = np.moveaxis(_decoded(mask)[..., :3].astype(np.int32), -1, 0)
    colours = (red << 16) + (green << 8) + blue
    classes, unknown = meaning.colours.look_up(colours)
    if unknown.any():
        most, where = _most(colours[unknown], "colours")
        colour = (most >> 16, most >> 8 & 255, most & 255)
        raise S3Error(
            f"{name} has the colour {colour} at {where}, which the class table does not list: add its class, or a line "
            f"with the number {meaning.ignored[-1]} for what does not count"
        )
    return classes


def _most(numbers: np.ndarray, what: str) -> tuple[int, str]:
    """The most frequent of numbers, and in words how often it and others there are."""
    found, counts = np.unique(numbers, return_counts=True)
    more = f" (and {len(found) - 1:,} other {what})" if len(found) > 1 else ""
    return int(found[np.argmax(counts)]), f"{counts.max():,} pixels{more}"


def _spoken_values(table: ClassTable) -> str:
    values = table.values or ()
    if len(values) == max(values) - min(values) + 1:
        return f"the values {min(values)} to {max(values)}"
    return f"other values of {min(values)} to {max(values)}"


def _spoken_size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


def _open_split(path: str, split: str, images: str, masks: str, meaning: Meaning) -> MaskFolder:
    image_listing, mask_listing = (_list_split(path, folder, split) for folder in (images, masks))
    image_folder, mask_folder = (os.path.join(path, folder, split) for folder in (images, masks))
    image_paths, mask_paths = _by_stem(image_folder, image_listing), _by_stem(mask_folder, mask_listing)
    _refuse_unpaired(image_folder, image_paths, mask_folder, mask_paths, "image", "mask")
    _refuse_unpaired(mask_folder, mask_paths, image_folder, image_paths, "mask", "image")
    return MaskFolder(
        _files(image_folder, list(image_paths.values()), image_listing),
        _files(mask_folder, [mask_paths[stem] for stem in image_paths], mask_listing),
        meaning,
    )


def _list_split(path: str, top: str, split: str) -> Listing:
    folder = os.path.join(path, top, split)
    if not path or not any_path(folder).is_dir():
        above = os.path.join(path, top)
        there = _existing_folders(above) or _existing_folders(path)
        raise S3Error(
            printable(
                f"no folder {folder!r}: prepare the data as <path>/<images>/<split>/<name>.jpg and "
                f"<path>/<masks>/<split>/<name>.png, and set the names of the folders{there}"
            )
        )
    listing = list_folder(folder)
    _refuse_dead_links(folder, listing.dead_links)
    if listing.left_out:
        counts = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in listing.left_out.items())
        logging.warning("files below %s are no images by their name: %s", printable(folder), printable(counts))
    if not listing.images:
        raise S3Error(printable(f"{folder} has no image at any depth; add some ({', '.join(SUFFIXES)})"))
    return listing


def _refuse_dead_links(folder: str, links: Sequence[str]) -> None:
    if links:
        raise S3Error(
            printable(
                f"{len(links):,} links below {folder} lead nowhere, the first is {links[0]}: fetch what they stand for "
                "(`dvc pull`, `git annex get`) or remove them"
            )
        )


def _existing_folders(path: str) -> str:
    place = any_path(path)
    if not path or not place.is_dir():
        return ""
    try:
        found = place.entries() if isinstance(place, BucketPath) else list(place.iterdir())
    except OSError:  # it may not be looked into
        return ""
    names = [each.name for each in found if each.is_dir() and not each.name.startswith(".")]
    return f"; {path} has {listed(names)}" if names else ""


def _by_stem(folder: str, listing: Listing) -> dict[str, str]:
    """Paths by what they are without their suffix, composed (NFC): file systems and archives differ in that."""
    paths: dict[str, str] = {}
    for path in listing.images:
        other = paths.setdefault(unicodedata.normalize("NFC", os.path.splitext(path)[0]), path)
        if other != path:
            raise S3Error(
                printable(
                    f"{folder} has both {other} and {path}, and which belongs to which is unknown: keep one of them"
                )
            )
    return paths


def _refuse_unpaired(
    folder: str, paths: Mapping[str, str], other: str, others: Mapping[str, str], one: str, partner: str
) -> None:
    alone = [path for stem, path in paths.items() if stem not in others]
    if alone:
        raise S3Error(
            printable(
                f"{len(alone):,} of {len(paths):,} {one}s below {folder} have no {partner} of the same path and name "
                f"below {other}: {listed(alone)}"
            )
        )


def _files(folder: str, paths: Sequence[str], listing: Listing) -> FolderImages:
    """Files without labels of their own."""
    links = np.array([path in listing.links for path in paths])
    return FolderImages(folder, np.array([os.fsencode(path) for path in paths]), np.zeros(len(paths), np.int32), links)
