"""Addresses of streams, as of cameras, and names of files: what tells a video without opening it."""


SCHEMES = ("rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp")
PROTOCOLS = ("crypto", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "srtp", "tcp", "tls", "udp")   # that these use
SUFFIXES = frozenset({".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
                      ".mxf", ".ogv", ".webm", ".wmv"})     # without .ts, which are programs more often


def is_stream(source: object) -> bool:
    """Whether it is the address of a stream."""
    return isinstance(source, str) and "://" in source and source.partition("://")[0].lower() in SCHEMES


def without_password(address: str) -> str:
    """The address as it may be printed."""
    scheme, _, rest = address.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    if not at:
        return address
    return f"{scheme}://{user.partition(':')[0]}:***@{host}{rest[len(user) + 1 + len(host):]}"
