"""What a denoiser says about a rendered view, as a gradient."""
