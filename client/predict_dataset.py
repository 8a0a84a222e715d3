"""The command `predict-dataset`: predictions of many files, in processes of this machine or of a Ray cluster."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, get_args

import click
from tqdm import tqdm

from lstm_fcn.client.options import spread_options
from lstm_fcn.container import artifact
from lstm_fcn.container.channels import is_data_file
from lstm_fcn.container.csv_blocks import unpacked
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.media_types import CSV, OUTPUTS, Precision
from lstm_fcn.container.spread import spread
from lstm_fcn.container.tables import is_table
from lstm_fcn.serving.encode import Encoder, ResponseFormat
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.transform import Transform, open_target, read_outputs

SUFFIX = ".out.parquet"


class Model(NamedTuple):
    """What a process needs to predict; for the fields, see `Transform`. It can be pickled and compared.

    metadata: the content of `model.json`.
    """

    metadata: str
    graph: bytes
    outputs: tuple[str, ...]
    join: bool
    precision: Precision

    @classmethod
    def read(cls, folder: Path, outputs: str = "", join: bool = False, precision: Precision = "float32") -> "Model":
        """The model in a folder. Raises `UserError` if there is none, or it does not have the outputs."""
        metadata, graph = artifact.load(folder)
        if metadata.problem.preparation is not None:
            raise UserError(f"{folder} is a model of recordings; predict each recording with lstm-fcn predict.")
        names = read_outputs(outputs)
        Encoder(metadata).outputs(ResponseFormat(CSV, names))
        return cls(metadata.model_dump_json(), graph, names, join, precision)

    def open(self) -> Transform:
        """The model with a session of one thread."""
        predictor = Predictor(artifact.Metadata.model_validate_json(self.metadata), self.graph, 1, self.precision)
        return Transform(predictor, self.outputs, "parquet", None, self.join)


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or of an object store.

    files: file system as pyarrow has it.
    path: in the file system.
    """

    files: Any
    path: str

    @classmethod
    def at(cls, address: str) -> "Folder":
        """The folder at a path, or at an address such as s3://bucket/folder. Raises `UserError` for another address."""
        from pyarrow import ArrowException, fs

        try:
            files, path = fs.FileSystem.from_uri(address if "://" in address else str(Path(address).absolute()))
        except (ArrowException, OSError) as error:
            raise UserError(f"{address} is not the address of a folder: {error}.") from error
        return cls(files, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return str(self.files.type_name) == "local"

    def list(self) -> list[str]:
        """The data files in the folder, and below it, by their paths in it; none without a folder."""
        from pyarrow import fs

        found = self.files.get_file_info(fs.FileSelector(self.path, allow_not_found=True, recursive=True))
        names = {entry.path[len(self.path) + 1 :]: entry for entry in found if entry.is_file and entry.size}
        return sorted(name for name in names if is_data_file(PurePosixPath(name)))

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """A file as one on this machine."""
        if self.is_local:
            yield Path(self.path, name)
            return
        from pyarrow import fs

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, PurePosixPath(name).name)
            fs.copy_files(f"{self.path}/{name}", str(path), self.files, fs.LocalFileSystem())
            yield path

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path on this machine whose content becomes a file of the folder."""
        if self.is_local:
            yield Path(self.path, name)
            return
        from pyarrow import fs

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "predictions")
            yield path
            # An object appears once its upload is complete.
            fs.copy_files(str(path), f"{self.path}/{name}", fs.LocalFileSystem(), self.files)


def predict_dataset(
    model: Model,
    source: str,
    target: str,
    workers: int | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Predict all files of a folder, each in one process; outputs that exist are kept unless `overwrite` is set.

    Args:
        model: to predict with.
        source: folder of CSV, Parquet and Arrow files, or its address in an object store.
        target: folder, or its address; the outputs are named after the files, with `SUFFIX` appended.
        workers: see `spread`.
        cluster: see `spread`.
        overwrite: see above.

    Returns:
        the files that could not be predicted, with the reason; they have no output.

    Raises:
        UserError: the folder has no data files, the output is inside it, or as `spread` does.
    """
    inputs, outputs = Folder.at(source), Folder.at(target)
    with _explained(source):
        names = inputs.list()
    if not names:
        raise UserError(f"There are no data files in {source}.")
    if inputs.is_local == outputs.is_local and f"{outputs.path}/".startswith(f"{inputs.path}/"):
        raise UserError(f"The output for the folder {source} must be a folder outside of it, not {target}.")
    with _explained(target):
        done = set() if overwrite else {name.removesuffix(SUFFIX) for name in outputs.list() if name.endswith(SUFFIX)}
    waiting = [name for name in names if name not in done]
    if len(waiting) < len(names):
        click.echo(f"{len(names) - len(waiting)} of {len(names)} outputs exist and are kept; --overwrite replaces them")
    failed: dict[str, str] = {}
    rows = complete = 0
    with tqdm(total=len(waiting), unit="file", dynamic_ncols=True, disable=None) as bar:
        for name, result in spread(partial(predict_file, model, inputs, outputs), waiting, workers, cluster):
            bar.update()
            complete += 1
            if isinstance(result, str):
                failed[name] = result
                bar.write(f"Error: {result}", file=sys.stderr)
            else:
                rows += result
                if bar.disable:
                    bar.write(f"[{complete}/{len(waiting)}] {name}: {plural(result, 'row')}")
    click.echo(f"{target}: {plural(rows, 'row')} of {plural(len(waiting) - len(failed), 'file')}")
    return failed


# In another process


@lru_cache(1)
def _open(model: Model) -> Transform:
    return model.open()


def predict_file(model: Model, inputs: Folder, outputs: Folder, name: str) -> int | str:
    """Predict a file; return the number of its rows, or what is wrong."""
    counts: list[int] = []
    try:
        with _explained(name), inputs.reading(name) as source, outputs.writing(f"{name}{SUFFIX}") as target:
            _transform(_open(model), source, target, f"{inputs.path}/{name}", counts.append)
    except UserError as error:
        return str(error)
    return sum(counts)


def _transform(transform: Transform, source: Path, target: Path, name: str, advance: Callable[[int], None]) -> None:
    """Predict the file `source`, which messages call `name`."""
    try:
        with open_target(target) as sink:
            if is_table(source):
                transform.run_table(source, sink, advance)
                return
            with source.open("rb") as raw, unpacked(raw, name) as stream:
                transform.run(stream, name, sink, advance)
    except UserError as error:
        raise UserError(str(error).replace(str(source), name)) from error


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Convert errors of a file system to `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or name}: {error.strerror or error}.") from error


@click.command("predict-dataset")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@click.option("--outputs", default="", help="outputs, separated by commas: " + ", ".join(OUTPUTS))
@click.option("--join", is_flag=True, help="write each prediction after the columns of its row (tables only)")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option("--overwrite", is_flag=True, help="replace outputs that exist")
@spread_options
def predict_dataset_command(
    model: Path, source: str, target: str, outputs: str, join: bool, precision: Precision, **options: Any
) -> int:
    """Predict all files of a folder with the model in the folder MODEL, many files at a time.

    INPUT and OUTPUT are folders, or addresses in an object store such as s3://bucket/folder. INPUT has CSV, Parquet or
    Arrow files, as for lstm-fcn transform; OUTPUT gets a Parquet file for each of them, once it is complete. If the
    command is interrupted, run it again to resume: files that have an output are skipped.
    """
    failed = predict_dataset(Model.read(model, outputs, join, precision), source, target, **options)
    return UserError.exit_code if failed else 0
