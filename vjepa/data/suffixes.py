"""The suffixes of file names by which videos and images are found in folders and shards."""

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .m2ts .mts .vob .wmv .asf .flv .f4v .ts .3gp .gif .ogv .mxf .dv "
    ".h264 .264 .h265 .265 .hevc .mjpeg .mjpg".split()
)
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .apng .webp .avif .bmp .ppm .pgm .tif .tiff".split())
