"""Tiny datasets of photos in their true formats on disk, of pictures that are drawn: no file is anybody's work."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

_N_ATTRIBUTES = 40


def draw_picture(number: int, *, width: int = 80, height: int = 64) -> Image.Image:
    """Return a smooth colour picture; each number gives another one."""
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    colours = [np.sin(3 * x * (1 + c) + number) * np.cos(2 * y + c * number) for c in range(3)]
    return Image.fromarray(np.uint8(np.stack(colours, -1) * 127 + 128))


def encode_picture(number: int, kind: str = "JPEG", *, width: int = 80, height: int = 64) -> bytes:
    """Return `draw_picture` as the bytes of a file, of quality 60 where the kind has such."""
    stream = BytesIO()
    draw_picture(number, width=width, height=height).save(stream, kind, quality=60)
    return stream.getvalue()


def write_image_folder(folder: Path, *, n: int = 40) -> Path:
    """Write ``n`` images in two classes, one of them nested, with a grey and an RGBA PNG among them, and a text file.

    Returns:
        ``folder``.
    """
    for part in ("cats", "dogs/large", "dogs/small"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    draw_picture(0).convert("L").save(folder / "cats" / "grey.png")
    draw_picture(1).convert("RGBA").save(folder / "dogs" / "small" / "rgba.png")
    for i in range(2, n):
        part, suffix = (("cats", "jpg"), ("dogs/large", "JPEG"), ("dogs/small", "webp"))[i % 3]
        (folder / part / f"{i:03}.{suffix}").write_bytes(encode_picture(i, "WEBP" if suffix == "webp" else "JPEG"))
    (folder / "cats" / "notes.txt").write_text("not an image\n", encoding="utf-8")
    return folder


def write_celeba(root: Path, *, n_train: int = 20, n_val: int = 10, n_test: int = 10) -> Path:
    """Write ``<root>/celeba``: JPEG of 178×218 pixels in ``img_align_celeba``, and the five text files.

    Returns:
        The folder ``celeba``.
    """
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    splits = [0] * n_train + [1] * n_val + [2] * n_test
    names = [f"{i:06}.jpg" for i in range(1, len(splits) + 1)]
    for i, name in enumerate(names):
        (folder / "img_align_celeba" / name).write_bytes(encode_picture(i, width=178, height=218))
    attributes = [f"Attribute_{k}" for k in range(_N_ATTRIBUTES)]
    values = np.where(np.random.default_rng(0).random((len(names), _N_ATTRIBUTES)) < 0.5, -1, 1)
    points = " ".join(f"{part}_{axis}" for part in ("lefteye", "righteye", "nose") for axis in "xy")
    tables = {
        "list_eval_partition.txt": [f"{name} {split}" for name, split in zip(names, splits, strict=True)],
        "identity_CelebA.txt": [f"{name} {100 + i}" for i, name in enumerate(names)],
        "list_attr_celeba.txt": [
            str(len(names)),
            " ".join(attributes) + " ",
            *(f"{name} {' '.join(f'{v:2}' for v in row)}" for name, row in zip(names, values, strict=True)),
        ],
        "list_bbox_celeba.txt": [
            str(len(names)),
            "image_id x_1 y_1 width height",
            *(f"{name}    95  71 226 313" for name in names),
        ],
        "list_landmarks_align_celeba.txt": [
            str(len(names)),
            f"{points} leftmouth_x leftmouth_y rightmouth_x rightmouth_y",
            *(f"{name} 69  109  106  113   77  142   73  152  108  154" for name in names),
        ],
    }
    for file, lines in tables.items():
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_celeba_hq(root: Path, *, n: int = 60, mapping: bool = True) -> Path:
    """Write ``<root>/celeba-hq`` with images ``0.jpg …``, two thirds of them for training, and the mapping to CelebA.

    Returns:
        The folder ``celeba-hq``.
    """
    folder = root / "celeba-hq"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i}.jpg").write_bytes(encode_picture(i))
    if mapping:
        originals = [(162_769 - i, 162_770 + i, 182_637 + i)[max(i % 6 - 3, 0)] for i in range(n)]
        rows = [f"{i:<10}{original:<10}{original + 1:06}.jpg" for i, original in enumerate(originals)]
        header = "idx     orig_idx     orig_file"
        (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


def write_celeba_hq_parquet(root: Path, *, n: int = 100) -> Path:
    """Write ``<root>/celeba-hq/data`` with two shards as the Hugging Face hub has them, images embedded; needs pyarrow.

    Returns:
        The folder ``celeba-hq``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = root / "celeba-hq" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for k, numbers in enumerate(np.array_split(np.arange(n), 2)):
        images = [{"bytes": encode_picture(int(i)), "path": None} for i in numbers]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind), "label": pa.array((numbers % 2).tolist())})
        pq.write_table(table, folder / f"train-{k:05}-of-00002.parquet", row_group_size=16)
    return folder.parent


def write_lsun_bedroom(root: Path, *, n: int = 100) -> Path:
    """Write ``<root>/lsun-bedroom-20`` with ``n`` JPEG files, nested by their hash.

    Returns:
        The folder ``lsun-bedroom-20``.
    """
    folder = root / "lsun-bedroom-20"
    for i in range(n):
        data = encode_picture(i)
        name = hashlib.sha1(data).hexdigest()
        path = folder / "data0" / "lsun" / "bedroom" / name[0] / name[1] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_lsun_church(root: Path, *, n: int = 100) -> Path:
    """Write ``<root>/church_outdoor_train_lmdb``: ``n`` JPEG and WebP images by the SHA-1 of their bytes; needs lmdb.

    Returns:
        The folder ``church_outdoor_train_lmdb``.
    """
    import lmdb

    folder = root / "church_outdoor_train_lmdb"
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=2**26) as env, env.begin(write=True) as transaction:
        for i in range(n):
            data = encode_picture(i, ("JPEG", "WEBP")[i % 2])
            transaction.put(hashlib.sha1(data).hexdigest().encode(), data)
    return folder
