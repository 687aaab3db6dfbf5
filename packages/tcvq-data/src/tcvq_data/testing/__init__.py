"""For the tests of this package and of yours: a conformance kit, and tiny datasets in their true formats on disk."""

from tcvq_data.testing.arrays import write_cifar10, write_mnist, write_npz_images, write_parquet_images
from tcvq_data.testing.conformance import check_image_source, idx_bytes
from tcvq_data.testing.events import write_dvs_cifar10, write_nmnist_set
from tcvq_data.testing.folders import (
    write_celeba,
    write_celeba_hq,
    write_celeba_hq_parquet,
    write_image_folder,
    write_lsun_bedroom,
    write_lsun_church,
)

__all__ = [
    "check_image_source",
    "idx_bytes",
    "write_celeba",
    "write_celeba_hq",
    "write_celeba_hq_parquet",
    "write_cifar10",
    "write_dvs_cifar10",
    "write_image_folder",
    "write_lsun_bedroom",
    "write_lsun_church",
    "write_mnist",
    "write_nmnist_set",
    "write_npz_images",
    "write_parquet_images",
]
