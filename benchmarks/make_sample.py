"""Make ``streams/sample/`` from a folder of KuaiRand-Pure, given by path.

    python -m benchmarks.make_sample PATH_TO_KUAIRAND_PURE [OUTPUT]

The whole standard-policy log is kept, all users and all rows in their order, so there is nothing to
choose; only the columns that a replay reads are. Packed by column as suits it (times and play times
as differences, the rest through dictionaries), it is a tenth of the size of the csv.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streams.sources.files import find_file, find_files, read_lines
from streams.sources.kuairand import LOG_COLUMNS, VIDEO_COLUMNS, read_log

SHORT = {"user_id": np.int32, "video_id": np.int32, "time_ms": np.int64, "play_time_ms": np.int32}
DIFFERENCES = ("time_ms", "play_time_ms")
LOG_NAME = "log_standard_sample.parquet"
VIDEOS_NAME = "video_features_basic_sample.csv.gz"


def write_log(folder: Path, output: Path) -> int:
    """Write the log's columns; returns the number of rows."""
    log = read_log(folder)
    columns = {}
    for name in LOG_COLUMNS:
        kind = SHORT.get(name, np.int32 if name == "duration_ms" else np.int8)
        columns[name] = log[name].astype(kind)
        if not np.array_equal(columns[name], log[name]):
            raise SystemExit(f"column {name} does not fit {np.dtype(kind)}")
    pq.write_table(
        pa.table(columns),
        output / LOG_NAME,
        compression="zstd",
        compression_level=22,
        use_dictionary=[name for name in LOG_COLUMNS if name not in DIFFERENCES],
        column_encoding=dict.fromkeys(DIFFERENCES, "DELTA_BINARY_PACKED"),
        store_schema=False,
    )
    return len(log["time_ms"])


def write_videos(folder: Path, output: Path) -> int:
    """Write the videos' columns; returns the number of videos."""
    file = find_file(folder, "video_features_basic_*.csv")
    if file is None:
        raise SystemExit(f"{folder}: no video_features_basic_*.csv")
    rows = list(csv.DictReader(read_lines(file)))
    text = io.StringIO()
    writer = csv.DictWriter(text, VIDEO_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # No time in the header: the same input gives the same bytes.
    (output / VIDEOS_NAME).write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=Path(str(files("streams") / "sample")))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    n_rows, n_videos = write_log(args.folder, args.output), write_videos(args.folder, args.output)
    licence = find_files(args.folder, "LICENSE")
    if licence:
        (args.output / "LICENSE").write_bytes(licence[0].read_bytes())
    print(f"{n_rows} impressions, {n_videos} videos in {args.output}")


if __name__ == "__main__":
    main()
