"""Every error that Shoal raises on purpose.

ShoalError                    exit code 1
├── WorkError                 exit code 1   the request was fine, the work failed
│   ├── NoImagesError                       not one usable image
│   ├── TooFewImagesError                   fewer images than clusters
│   ├── CollapseError                       a clustering collapsed and there was no fallback
│   ├── NothingMeasuredError                a bench found nothing that it could run here
│   ├── DiskSpaceError                      the disk would run full
│   ├── CacheError                          no folder, not even a temporary one, takes what a cache would
│   └── RunLockedError                      another process is writing the run
├── RequestError              exit code 2   the request was wrong
│   ├── ConfigError                         an option has a value it cannot have
│   ├── SourceError                         the source is not there or is of no known kind
│   ├── DataAbsentError                     a benchmark's data is not on this machine
│   ├── WeightsError                        weights are missing or do not fit the backbone
│   ├── EmbeddingsError                     given embeddings cannot be read, or do not fit the source or the run
│   └── RunError                            the run is missing, unfinished, newer, or of another source
└── DecodeError               exit code 1   one image cannot be decoded; its text is the `reason` in images.parquet

Messages are one line that names the thing, its value and what was expected.
"""


class ShoalError(Exception):
    """Base class; `exit_code` is what the command line returns for it."""

    exit_code = 1


class WorkError(ShoalError):
    """The request was fine, but the work failed."""


class NoImagesError(WorkError):
    """The source holds not one usable image."""


class TooFewImagesError(WorkError):
    """The source holds fewer usable images than the clusters asked for."""


class CollapseError(WorkError):
    """A clustering collapsed and there was nothing to fall back to."""


class NothingMeasuredError(WorkError):
    """A bench found nothing that it could run on this machine."""


class DiskSpaceError(WorkError):
    """The disk has less free space than the work needs."""


class CacheError(WorkError):
    """What belongs into a cache can be written neither there nor into a temporary folder."""


class RunLockedError(WorkError):
    """Another process is writing this run."""


class RequestError(ShoalError):
    """The request was wrong."""

    exit_code = 2


class ConfigError(RequestError, ValueError):
    """An option or parameter has a value it cannot have."""


class SourceError(RequestError):
    """The source is not there or is of no known kind."""


class DataAbsentError(RequestError):
    """A benchmark's data is not on this machine; the text says what would bring it."""


class WeightsError(RequestError):
    """Weights are missing, or do not fit the backbone."""


class EmbeddingsError(RequestError):
    """Given embeddings cannot be read, or do not fit the source or the run."""


class RunError(RequestError):
    """The run directory is missing, unfinished, of a newer format, or belongs to another source."""


class DecodeError(ShoalError):
    """One image cannot be decoded; the text is the reason shown to the person."""
