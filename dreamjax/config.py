"""What a run is: frozen dataclasses, one per subsystem.

Angles are in degrees here and only here (the names say so); everything that
reads a config converts at its border. A `Schedule` is a pure function of
progress, the fraction of the run that is done, in [0, 1].

Long for a file, but one place to look up every setting, and one module to
import in a recipe.
"""

import dataclasses
import math

SHAPES = ("linear", "sqrt", "exponential", "cosine")
WEIGHTINGS = ("sds", "uniform", "fantasia3d", "x0")


def _check_choice(owner, field, choices):
  value = getattr(owner, field)
  if value not in choices:
    raise ValueError(
        f"{type(owner).__name__}: {field} is {value!r}, want one of {choices}."
    )


def _check_at_least(owner, least, *fields):
  for field in fields:
    value = getattr(owner, field)
    if value < least:
      raise ValueError(
          f"{type(owner).__name__}: {field} is {value}, want at least {least}."
      )


def _check_share(owner, *fields):
  for field in fields:
    value = getattr(owner, field)
    if not 0.0 <= value <= 1.0:
      raise ValueError(
          f"{type(owner).__name__}: {field} is {value}, want 0 to 1."
      )


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A value that moves from `start` to `end` while progress runs over a span.

  Attributes:
    start: value before `begin`.
    end: value after `finish`.
    begin: progress at which the value starts to move, in [0, 1].
    finish: progress at which it arrives, >= begin.
    shape: one of `SHAPES`; "sqrt" moves fast first (HiFA's annealing),
      "exponential" interpolates logarithms (both values must be positive),
      "cosine" follows half a cosine.
  """

  start: float = 0.0
  end: float = 0.0
  begin: float = 0.0
  finish: float = 1.0
  shape: str = "linear"

  def __post_init__(self):
    _check_choice(self, "shape", SHAPES)
    if not 0.0 <= self.begin <= self.finish <= 1.0:
      raise ValueError(
          f"Schedule: begin {self.begin} and finish {self.finish} must satisfy"
          " 0 <= begin <= finish <= 1."
      )
    if self.shape == "exponential" and min(self.start, self.end) <= 0.0:
      raise ValueError(
          f"Schedule: exponential from {self.start} to {self.end}; both must"
          " be positive."
      )


def constant(value):
  """A schedule that never moves."""
  return Schedule(start=value, end=value)


@dataclasses.dataclass(frozen=True)
class CameraConfig:
  """Distribution of training cameras (DreamFusion, appendix A.2).

  Attributes:
    distance: range of the distance to the origin.
    distance_unit: "scene" for scene units; "frame" for multiples of the
      distance at which the unit ball just fills the frame, 1 / sin(fov / 2).
    fov_degrees: range of the vertical field of view.
    fov_uniform_in: "angle" draws the angle, "focal" draws the focal length
      between the two ends (DreamFusion's lambda_focal).
    elevation_degrees: range of the elevation.
    elevation_area_probability: share of views whose elevation is uniform in
      area on the sphere; the others are uniform in angle.
    azimuth_degrees: range of the azimuth, stratified over the global batch.
    position_jitter: half width of a uniform shift of the camera, units.
    target_jitter: standard deviation of the point looked at, units.
    up_jitter: standard deviation of the up vector.
  """

  distance: tuple[float, float] = (1.0, 1.25)
  distance_unit: str = "frame"
  fov_degrees: tuple[float, float] = (38.0, 50.0)
  fov_uniform_in: str = "angle"
  elevation_degrees: tuple[float, float] = (-10.0, 85.0)
  elevation_area_probability: float = 0.5
  azimuth_degrees: tuple[float, float] = (-180.0, 180.0)
  position_jitter: float = 0.0
  target_jitter: float = 0.0
  up_jitter: float = 0.0


@dataclasses.dataclass(frozen=True)
class ShadingConfig:
  """Light and material (DreamFusion, section 3.1 and appendix A.2).

  Attributes:
    light: "point" (a position) or "directional" (the same at all points).
    light_distance: range of the point light's distance, units.
    light_jitter: standard deviation added to the camera position before the
      light's direction is normalised.
    light_lift: added to the z of that direction: light falls from above.
    ambient: range of the ambient share when lit; the diffuse share is
      1 - ambient.
    albedo_until: progress before which nothing is lit.
    shaded_probability: chance that a view is lit afterwards.
    textureless_probability: chance that a lit view has a white albedo.
  """

  light: str = "point"
  light_distance: tuple[float, float] = (0.8, 1.5)
  light_jitter: float = 1.0
  light_lift: float = 0.0
  ambient: tuple[float, float] = (0.1, 0.1)
  albedo_until: float = 0.1
  shaded_probability: float = 0.75
  textureless_probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class BackgroundConfig:
  """What is seen where the object is not.

  Attributes:
    plain_probability: chance that a view has one random plain colour instead
      of the learnt background.
    plain_gray: range of the plain colour's gray level.
    plain_tint: half width of a uniform tint added to each channel.
    frequencies: octaves of the direction encoding of the learnt background.
    width: hidden width of the learnt background; kept tiny so that it cannot
      paint the prompt.
    layers: hidden layers of the learnt background.
  """

  plain_probability: float = 1.0
  plain_gray: tuple[float, float] = (0.1, 1.0)
  plain_tint: float = 0.12
  frequencies: int = 4
  width: int = 16
  layers: int = 2


@dataclasses.dataclass(frozen=True)
class FieldConfig:
  """The scene representation.

  Attributes:
    kind: "hashgrid" (Instant-NGP) or "mlp" (DreamFusion's mip-NeRF).
    activation: density activation, "exp" or "softplus", each with its own
      blob: exp adds blob_scale exp(-|x|^2 / (2 blob_width^2)) (DreamFusion),
      softplus adds blob_scale (1 - |x| / blob_width) (Magic3D).
    blob_scale: height of the initial blob, before the activation.
    blob_width: width of the initial blob, units.
    levels: hash grid levels.
    features: features per level.
    log2_table_size: log2 of the largest number of entries of a level.
    base_resolution: cells per axis of the coarsest level.
    max_resolution: cells per axis of the finest level.
    smoothstep: interpolate with 3x^2 - 2x^3, so that normals are continuous.
    active_levels: schedule of the number of levels that are not masked.
    width: hidden width of the MLPs.
    layers: hidden layers of the density MLP (hashgrid) or residual blocks
      (mlp).
    frequencies: octaves of the integrated positional encoding (mlp).
    ipe_variance: schedule of its isotropic variance (DreamFusion's
      lambda_Sigma).
  """

  kind: str = "hashgrid"
  activation: str = "softplus"
  blob_scale: float = 10.0
  blob_width: float = 0.5
  levels: int = 16
  features: int = 2
  log2_table_size: int = 19
  base_resolution: int = 16
  max_resolution: int = 2048
  smoothstep: bool = False
  active_levels: Schedule = constant(16)
  width: int = 64
  layers: int = 1
  frequencies: int = 8
  ipe_variance: Schedule = Schedule(5e-2, 2e-3, 0.0, 1 / 3)


@dataclasses.dataclass(frozen=True)
class RenderConfig:
  """Ray marching and the occupancy grid.

  Attributes:
    resolution: pixels per side of a training view.
    bound: radius of the ball that holds the scene, units.
    steps: samples along a diameter of that ball; the step is 2 bound / steps.
    samples_per_ray: budget of samples, on average over the rays of a step.
    samples_per_chunk: samples whose field is computed at a time. A budget of
      several chunks skips the empty ones and recomputes the others in the
      backward pass. Small ones stay in a CPU's cache; a GPU wants one chunk,
      as large as its memory allows.
    occupancy_resolution: cells per axis of the occupancy grid.
    occupancy_every: steps between two updates of it.
    occupancy_decay: decay of its running maximum.
    occupancy_threshold: largest density that counts as empty, 1/unit.
  """

  resolution: int = 64
  bound: float = 1.0
  steps: int = 128
  samples_per_ray: int = 32
  samples_per_chunk: int = 16384
  occupancy_resolution: int = 64
  occupancy_every: int = 16
  occupancy_decay: float = 0.95
  occupancy_threshold: float = 0.5

  def __post_init__(self):
    _check_at_least(
        self,
        1,
        "resolution",
        "steps",
        "samples_per_ray",
        "samples_per_chunk",
        "occupancy_resolution",
        "occupancy_every",
    )


@dataclasses.dataclass(frozen=True)
class PromptConfig:
  """View-dependent wording (DreamFusion, section 3.2 and appendix A.2).

  Attributes:
    views: (azimuth in degrees, words) pairs around the object.
    overhead: words for views from above.
    overhead_degrees: elevation above which they are used alone.
    blend: "nearest" takes the nearest view's embedding, "linear" interpolates
      between the two neighbours in azimuth, "bilinear" also from them at
      elevation 0 to the words from above.
    negative: negative prompt; it replaces the empty prompt of
      classifier-free guidance.
  """

  views: tuple[tuple[float, str], ...] = (
      (0.0, "front view"),
      (90.0, "side view"),
      (180.0, "back view"),
      (270.0, "side view"),
  )
  overhead: str = "overhead view"
  overhead_degrees: float = 60.0
  blend: str = "nearest"
  negative: str = ""

  def __post_init__(self):
    _check_choice(self, "blend", ("nearest", "linear", "bilinear"))
    if not self.views:
      raise ValueError("PromptConfig: views is empty, want at least one.")
    if self.blend == "bilinear" and not self.overhead_degrees > 0:
      raise ValueError(
          f"PromptConfig: overhead_degrees is {self.overhead_degrees}, want more"
          " than 0 to blend towards it."
      )


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
  """Score distillation.

  Attributes:
    scale: schedule of classifier-free guidance, s in u + s (c - u).
    perp_neg: strength with which views are kept off the texts of sides that
      they do not show, against several faces; 0 for none, 2 is its authors'
      (prompts.oppose). It takes twice the denoiser's time.
    rescale: share phi of the guided x0's standard deviation that is pulled
      back to the conditional one (MVDream, section 3.2).
    weighting: w(t), one of `WEIGHTINGS`: "sds" sigma^2, "uniform" 1,
      "fantasia3d" alpha sigma^2, "x0" sigma / alpha (gradient z - x0).
    weight_cap: largest w(t).
    denoise_steps: steps of DDIM from t to 0 that find the clean latent; one is
      score distillation proper.
    residual: what the gradient compares, "latent" latents or "image" pixels;
      see guidance/sds.py.
    sharpen: strength of the unsharp mask on pictures that views are compared
      with; 0 for none. It answers a prior that draws softer than it should:
      objects would get its soft edges, and grow by them. It needs residuals
      of images.
    t_min: schedule of the lowest timestep, as a fraction of the schedule.
    t_max: schedule of the highest one; equal to t_min for annealing without
      chance.
    share_t: whether all views of a step share one t.
    noise_samples: noises per view, stratified in t and averaged.
    fixed_noise: schedule of the share of the noise's variance that belongs to
      the direction of the camera; the rest is fresh, see guidance/draws.py.
    latent_warmup: share of the run, at most half, in which normals and opacity
      take the place of latents: shapes at the price of the denoiser alone. For
      Stable Diffusion's own autoencoder, see prior.normals_as_latents.
    image_size: side that views are resized to before the encoder; 0 takes
      the size that the model was made for.
    views_per_call: views that a device sends through the prior's networks at a
      time, at most; 0 for all at once. Any other number saves memory; with
      residuals of latents it encodes every view a second time.
    dtype: the model's arithmetic, "float32" or "bfloat16".
  """

  scale: Schedule = constant(100.0)
  perp_neg: float = 0.0
  rescale: float = 0.0
  weighting: str = "sds"
  weight_cap: float = math.inf
  denoise_steps: int = 1
  residual: str = "latent"
  sharpen: float = 0.0
  t_min: Schedule = constant(0.02)
  t_max: Schedule = constant(0.98)
  share_t: bool = False
  noise_samples: int = 1
  fixed_noise: Schedule = constant(0.0)
  latent_warmup: float = 0.0
  image_size: int = 0
  views_per_call: int = 0
  dtype: str = "float32"

  def __post_init__(self):
    _check_at_least(self, 1, "noise_samples", "denoise_steps")
    _check_at_least(self, 0, "views_per_call", "perp_neg", "sharpen")
    _check_choice(self, "weighting", WEIGHTINGS)
    _check_choice(self, "residual", ("latent", "image"))
    if self.sharpen and self.residual != "image":
      raise ValueError(
          f"GuidanceConfig: sharpen is {self.sharpen}, but residual is"
          f" {self.residual!r}; only pictures are sharpened, so set"
          " residual='image' or sharpen=0."
      )
    if not 0.0 <= self.latent_warmup <= 0.5:
      raise ValueError(
          f"GuidanceConfig: latent_warmup is {self.latent_warmup}, want a share"
          " in [0, 0.5]; colours are learnt after it."
      )
    for share in (self.fixed_noise.start, self.fixed_noise.end):
      if not 0.0 <= share <= 1.0:
        raise ValueError(
            f"GuidanceConfig: fixed_noise is {share}, want a share in [0, 1]."
        )
    for name, low, high in (
        ("start", self.t_min.start, self.t_max.start),
        ("end", self.t_min.end, self.t_max.end),
    ):
      if not 0.0 <= low <= high <= 1.0:
        raise ValueError(
            f"GuidanceConfig: t_min.{name} {low} and t_max.{name} {high} must"
            f" satisfy 0 <= t_min <= t_max <= 1."
        )

  @property
  def branches(self) -> int:
    """Texts per view and noise that the denoiser sees in a call."""
    return 4 if self.perp_neg else 2


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the regularisers; the distillation gradient is a mean.

  Attributes:
    orientation: normals that face away from the camera (Ref-NeRF, Eq. 11,
      with DreamFusion's stop-gradient on the weights).
    opacity: sqrt(opacity^2 + 0.01) (DreamFusion, appendix A.3).
    entropy: binary entropy of the ray opacity, in nats.
    z_variance: variance of the depth along a ray (HiFA, Eq. 12).
  """

  orientation: Schedule = constant(0.0)
  opacity: Schedule = constant(0.0)
  entropy: Schedule = constant(0.0)
  z_variance: Schedule = constant(0.0)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam (Kingma and Ba 2015) with one learning rate per group.

  Attributes:
    table: learning rate of the hash table.
    network: learning rate of the MLPs.
    background: learning rate of the background network.
    decay: learning-rate factor at the end of the run; cosine in between.
    warmup: share of the run over which the rates grow from zero.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    epsilon: added to the root of the second moment.
    clip: largest global norm of the gradient; infinity for none.
    ema: decay of the running mean of the parameters used for the result.
  """

  table: float = 1e-2
  network: float = 1e-3
  background: float = 1e-3
  decay: float = 0.1
  warmup: float = 0.02
  beta1: float = 0.9
  beta2: float = 0.99
  epsilon: float = 1e-15
  clip: float = math.inf
  ema: float = 0.99

  def __post_init__(self):
    _check_share(self, "decay", "warmup", "ema")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The run itself.

  Attributes:
    steps: optimiser steps.
    views: views per prompt and step, over all devices.
    steps_per_dispatch: steps compiled into one device call.
    checkpoint_every: steps between two checkpoints.
    keep_checkpoints: how many are kept.
    preview_every: steps between two refreshes of progress.png; 0 for never.
  """

  steps: int = 800
  views: int = 4
  steps_per_dispatch: int = 20
  checkpoint_every: int = 200
  keep_checkpoints: int = 2
  preview_every: int = 200

  def __post_init__(self):
    _check_at_least(
        self,
        1,
        "steps",
        "views",
        "steps_per_dispatch",
        "checkpoint_every",
        "keep_checkpoints",
    )


@dataclasses.dataclass(frozen=True)
class OutputConfig:
  """What is written at the end.

  Attributes:
    mesh_resolution: cells per axis of the density grid that is meshed.
    mesh_density: density of the surface, 1/unit.
    mesh_faces: largest number of triangles.
    image_size: pixels per side of a rendered view.
    turntable_frames: frames of the turntable.
    frames_per_second: its speed.
  """

  mesh_resolution: int = 128
  mesh_density: float = 10.0
  mesh_faces: int = 50_000
  image_size: int = 128
  turntable_frames: int = 60
  frames_per_second: int = 20


@dataclasses.dataclass(frozen=True)
class Config:
  """A run, but for its prompts, its weights and its seed."""

  camera: CameraConfig = CameraConfig()
  shading: ShadingConfig = ShadingConfig()
  background: BackgroundConfig = BackgroundConfig()
  field: FieldConfig = FieldConfig()
  render: RenderConfig = RenderConfig()
  prompt: PromptConfig = PromptConfig()
  guidance: GuidanceConfig = GuidanceConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  train: TrainConfig = TrainConfig()
  output: OutputConfig = OutputConfig()
