"""The section `content` of the settings: what the content worker reads, with which models, and how fast."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

_GIVEN: Final = r"given:[^:\s]+:[0-9]{1,4}"
"""A model elsewhere: its name, and its dimensions."""

TextEncoder = Annotated[str, Meta(pattern=rf"^(default|none|sentence-transformers:.+|{_GIVEN})$")]
MediaEncoder = Annotated[str, Meta(pattern=rf"^(default|none|onnx:.+|transformers:.+|{_GIVEN})$")]
FilmEncoder = Annotated[str, Meta(pattern=rf"^(default|none|{_GIVEN})$")]
Precision = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(min_length=1, max_length=1_024)]


class ContentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the content worker reads, with which models, and how fast: [content.md](content.md)."""

    text_encoder: Annotated[
        TextEncoder,
        Meta(
            description="default, none, sentence-transformers:FOLDER, or given:NAME:DIMS for vectors of a"
            " model elsewhere that catalogues bring"
        ),
    ] = "default"
    image_encoder: Annotated[
        MediaEncoder, Meta(description="likewise, of covers; also onnx:FILE, transformers:FOLDER")
    ] = "default"
    audio_encoder: Annotated[
        MediaEncoder, Meta(description="likewise, of sounds and the sound tracks of videos")
    ] = "default"
    video_encoder: Annotated[
        FilmEncoder,
        Meta(description="default is the frames through the encoder of covers; none, given:NAME:DIMS"),
    ] = "default"
    cover_text: Annotated[
        bool,
        Meta(
            description="words on covers are read and added to the title: needs the extra ocr, and a third of"
            " a second a cover"
        ),
    ] = False
    device: Annotated[
        Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")],
        Meta(
            description="auto, cpu, cuda or cuda:N for models of torch; ONNX files go there too with"
            " onnxruntime-gpu"
        ),
    ] = "cpu"
    precision: Annotated[
        Precision,
        Meta(
            description="numbers of models of sentence-transformers and transformers: float32, bfloat16,"
            " float16; another one is another version, and all is encoded anew"
        ),
    ] = "float32"
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="cores that the encoders may use")
    ] = 1
    batch_size: Annotated[
        Annotated[int, Meta(ge=1, le=256)], Meta(description="most items that are encoded together")
    ] = 16
    media_workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="processes that fetch and decode media")
    ] = 2
    roots: Annotated[
        tuple[Text, ...], Meta(description="folders below which local media may lie; none: no local media")
    ] = ("/",)
    schemes: Annotated[tuple[Name, ...], Meta(description="what fsspec may open")] = (
        "s3", "gs", "gcs", "az", "abfs", "abfss",
    )  # fmt: skip
    hosts: Annotated[
        tuple[Text, ...], Meta(description="of http and https: cdn.example.org, host:port, *.example.org")
    ] = ()
    private_networks: Annotated[
        tuple[Text, ...], Meta(description="such as 10.2.0.0/16, to which hosts may lead although not public")
    ] = ()
    max_media_mib: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)], Meta(description="largest file of a medium, MiB")
    ] = 128
    max_megapixels: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="largest picture or frame, millions of pixels"),
    ] = 50
    max_audio_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)], Meta(description="longest sound, seconds that it plays")
    ] = 1_800.0
    max_video_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)], Meta(description="longest video, seconds that it plays")
    ] = 7_200.0
    fetch_s: Annotated[
        Annotated[float, Meta(gt=0, le=600)],
        Meta(description="longest that fetching a medium may take, seconds"),
    ] = 10.0
    decode_s: Annotated[
        Annotated[float, Meta(gt=0, le=600)],
        Meta(description="longest that decoding a medium may take, seconds"),
    ] = 10.0
    decode_memory_mib: Annotated[
        Annotated[int, Meta(ge=64, le=65_536)], Meta(description="most memory that decoding may take, MiB")
    ] = 1_024
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=10)],
        Meta(description="further attempts at media whose server was away or slow, after 30 s, 2 min, ..."),
    ] = 3
    reencode_per_s: Annotated[
        Annotated[float, Meta(gt=0, le=1_000)],
        Meta(
            description="most items a second that are encoded anew in the background, as after a new encoder"
        ),
    ] = 2.0
    tags: Annotated[
        tuple[Name, ...],
        Meta(description="tags that may be found by their name before any item brought them"),
    ] = ()
    tags_per_item: Annotated[
        Annotated[int, Meta(ge=0, le=32)], Meta(description="most tags of an item; 0 learns and finds none")
    ] = 8
    keywords: Annotated[
        bool, Meta(description="words of the title fill the places that learned tags leave")
    ] = True
