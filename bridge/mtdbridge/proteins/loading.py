"""Structures from archives and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtdcore._base.guarded import archive
from mtdcore.errors import InputError, MtdError, StorageError

from .coordinates import read_folder
from .structures import Structures, centred


def load_structures(source: str | Path) -> Structures:
    """Structures from an .npz archive or a folder of PDB and mmCIF files.

    Args:
        source: an archive with ``xyz`` (N, 3) in angstrom, ``weight`` (N,), ``offset`` (S + 1,) and, where there are
            any, ``name`` and ``split`` (0 train, 1 validation, 2 test); or a folder for
            :func:`mtdbridge.proteins.coordinates.read_folder`.

    Raises:
        InputError: the content is no set of structures.
        StorageError: the file cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return read_folder(path)
    try:
        with archive(path) as found:
            arrays = {name: found[name] for name in ("xyz", "weight", "offset")}
            count = len(arrays["offset"]) - 1
            names = found["name"] if "name" in found.names else np.arange(count).astype(np.str_)
            part = found["split"] if "split" in found.names else np.zeros(count, np.int8)
    except MtdError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: expected the arrays xyz, weight and offset; {error.args[0]}.") from error
    except OSError as error:
        raise StorageError(f"{path}: the structures cannot be read: {error}.") from error
    except Exception as error:  # NumPy, zipfile and zlib share no exception type
        raise InputError(f"{path}: expected an .npz archive of structures; {error}.") from error
    xyz = arrays["xyz"].astype(np.float32)
    return centred(xyz[:, ::-1], arrays["weight"], arrays["offset"], names, part)
