"""The packets of a film as its container holds them, in decoding order, undecoded."""

from __future__ import annotations

from dataclasses import dataclass

import av
import av.logging
from av.container import InputContainer
from av.video.stream import VideoStream

_VP8_SHOWN = 0x10  # bit of a VP8 packet's first byte; without it the packet is a reference that is not shown


@dataclass(frozen=True)
class StoredPacket:
    """One packet of the film; the packets are in decoding order."""

    time: int | None  # of its frame in ticks; None where it has none, or one that contradicts the others
    decode_time: int | None  # ticks
    position: int | None  # byte of its content in the file
    key: bool
    whole: bool


def picture_stream(container: InputContainer) -> VideoStream:
    """The film's stream of pictures. Raises ValueError where there is none that can be decoded."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise ValueError("a film without a video stream")
    if stream.codec_context is None:
        raise ValueError("a film of a codec that this installation's FFmpeg cannot decode")
    return stream


def is_shown(packet: av.Packet, stream: VideoStream) -> bool:
    """False for the empty packet at the end, what an edit list cuts off, and VP8's references that are not shown."""
    if not packet.size or packet.is_discard:
        return False
    return stream.codec_context.codec.name not in ("vp8", "libvpx") or bool(bytes(packet)[0] & _VP8_SHOWN)


def read_packets(container: InputContainer, stream: VideoStream) -> tuple[list[StoredPacket], list[str]]:
    """All packets that hold a picture to show, and what is wrong with the container."""
    packets = []
    notes = []
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            for packet in container.demux(stream):
                if is_shown(packet, stream):
                    packets.append(
                        StoredPacket(packet.pts, packet.dts, packet.pos, packet.is_keyframe, not packet.is_corrupt)
                    )
    except av.FFmpegError as error:
        notes.append(f"it cannot be read to its end ({error.strerror})")
    except IndexError:  # PyAV's, where damage makes a stream appear that it did not open
        notes.append("it cannot be read to its end (its streams change)")
    finally:
        av.logging.set_level(before)
    said = sorted({line.strip() for _, name, line in lines if name == container.format.name})
    return packets, notes + [f"the container is damaged: {line}" for line in said]
