"""Repositories over what is installed: pip's headers and the CUDA toolkit.

Nothing is downloaded. DREAMJAX_PYTHON names the interpreter that has jaxlib and
pybind11 and that will import the module (default: python3), CUDA_HOME the
toolkit (default: /usr/local/cuda).
"""

def _pip_headers(ctx):
    python = ctx.os.environ.get("DREAMJAX_PYTHON", "python3")
    found = ctx.execute([python, "-c", ctx.attr.code])
    if found.return_code != 0:
        fail("%s: %s finds no headers; pip install jaxlib==0.10.2 pybind11, or say DREAMJAX_PYTHON=...\n%s" % (
            ctx.name,
            python,
            found.stderr,
        ))
    ctx.symlink(found.stdout.strip(), "include")
    ctx.symlink(ctx.attr.overlay, "BUILD")

pip_headers = repository_rule(
    implementation = _pip_headers,
    attrs = {
        "code": attr.string(
            mandatory = True,
            doc = "Python that prints the folder of the headers.",
        ),
        "overlay": attr.label(mandatory = True),
    },
    configure = True,
    environ = ["DREAMJAX_PYTHON", "PATH", "VIRTUAL_ENV"],
    local = True,
)

def _cuda_toolkit(ctx):
    home = ctx.path(ctx.os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    if not home.get_child("bin").get_child("nvcc").exists:
        fail("%s: no bin/nvcc in %s; say CUDA_HOME=..." % (ctx.name, home))

    # nvcc finds its own files beside its true path, so it is not linked to.
    ctx.file(
        "nvcc",
        "#!/bin/sh\nexec '%s/bin/nvcc' \"$@\"\n" % home,
        executable = True,
    )
    for folder in ("lib64", "lib"):
        library = home.get_child(folder).get_child("libcudart_static.a")
        if library.exists:
            ctx.symlink(library, "libcudart_static.a")
            break
    ctx.symlink(ctx.attr.overlay, "BUILD")

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit,
    attrs = {"overlay": attr.label(mandatory = True)},
    configure = True,
    environ = ["CUDA_HOME"],
    local = True,
)
