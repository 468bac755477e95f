"""The object turning once: H.264 where there is an encoder, else WebP."""

import logging
import pathlib
import subprocess

import numpy as np
from PIL import Image

from dreamjax.outputs import files
from dreamjax.outputs import images
from dreamjax.outputs import sheet

_ELEVATION = np.radians(20.0)
_SMALLEST_SIDE = 256  # pixels; below it a player's window is a stamp


def write_turntable(folder, render_views, frames, frames_per_second):
  """Writes turntable.mp4, or turntable.webp if imageio-ffmpeg is missing.

  Args:
    folder: where to; it must exist.
    render_views: see sheet.render_all.
    frames: how many, over one counter-clockwise turn of the camera.
    frames_per_second: speed.
  Returns:
    pathlib.Path of the file.
  """
  azimuth = np.arange(frames) * (2 * np.pi / frames)
  views = sheet.render_all(render_views, sheet.orbit(azimuth, _ELEVATION))
  frames = np.concatenate([
      images.enlarge(views.color, _SMALLEST_SIDE),
      images.enlarge(views.shaded, _SMALLEST_SIDE),
  ], axis=2)
  return write_video(
      pathlib.Path(folder) / "turntable", images.to_bytes(frames),
      frames_per_second,
  )


def write_video(stem, frames, frames_per_second):
  """Writes frames as `stem`.mp4 if there is an encoder, else as `stem`.webp.

  Args:
    stem: path without suffix.
    frames: u8[F, H, W, 3].
    frames_per_second: speed.
  Returns:
    pathlib.Path of the file.
  """
  encoder = _encoder()
  path = pathlib.Path(stem).with_suffix(".mp4" if encoder else ".webp")
  with files.replacing(path) as temporary:
    if encoder:
      _write_mp4(encoder, temporary, frames, frames_per_second)
    else:
      _write_webp(temporary, frames, frames_per_second)
  return path


def _encoder():
  """The ffmpeg program of imageio-ffmpeg, or None if there is none."""
  try:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()
  except (ImportError, RuntimeError) as error:
    logging.info("No video encoder (%s): writing animated WebP.", error)
    return None


def _write_mp4(encoder, path, frames, frames_per_second):
  """H.264, 4:2:0 (what browsers play), tagged BT.709; repeatable bytes.

  The program is started here, not by imageio-ffmpeg's writer, which forks:
  JAX's threads may hold locks then.
  """
  # 4:2:0 shares colour between 2 x 2 pixels: both sides must be even.
  odd = [(0, size % 2) for size in frames.shape[1:3]]
  frames = np.pad(frames, [(0, 0), *odd, (0, 0)], mode="edge")
  height, width = frames.shape[1:3]
  command = [encoder, "-y", "-loglevel", "error"]
  command += f"""
      -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {frames_per_second}
      -i pipe:
      -vf scale=out_color_matrix=bt709:out_range=tv -pix_fmt yuv420p
      -colorspace bt709 -color_primaries bt709 -color_trc bt709
      -c:v libx264 -crf 16 -threads 1 -movflags +faststart
      -fflags +bitexact -flags:v +bitexact""".split()
  done = subprocess.run(
      [*command, str(path.absolute())], input=frames.tobytes(),
      capture_output=True, check=False,
  )
  if done.returncode:
    raise OSError(
        f"{encoder} ended with status {done.returncode}:"
        f" {done.stderr.decode(errors='replace').strip()}"
    )


def _write_webp(path, frames, frames_per_second):
  first, *rest = [Image.fromarray(frame) for frame in frames]
  first.save(
      path, save_all=True, append_images=rest, loop=0, quality=90,
      duration=round(1000 / frames_per_second),
  )
