"""Packaging: all is read from settings.ini, as nbdev does. The weights under data/ travel inside the package."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
shipped = ["tiny", "small"]  # folders of data/ that become seed_story/weights/NAME


class BuildWithWeights(build_py):
    "Copies data/NAME to seed_story/weights/NAME in what is built; an editable install finds data/ by itself."

    def _weights(self):
        "(source, target) of every shipped file."
        target = Path(self.build_lib, cfg["lib_name"], "weights")
        return [
            (file, target / name / file.relative_to(here / "data" / name))
            for name in shipped
            for file in sorted((here / "data" / name).rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        ]

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        shutil.rmtree(
            Path(self.build_lib, cfg["lib_name"], "weights"), ignore_errors=True
        )  # nothing from an earlier build
        for source, target in self._weights():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode=1):
        return super().get_outputs(include_bytecode) + (
            [] if getattr(self, "editable_mode", False) else [str(target) for _, target in self._weights()]
        )


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    packages=find_packages(include=["seed_story", "seed_story.*"]),
    package_data={cfg["lib_name"]: ["py.typed"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={name: cfg[f"{name}_requirements"].split() for name in ("dev", "small", "memory", "build", "docs")},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        # where other projects' documentation finds ours; `nbdev_export` writes it, and without it nbdev makes no links
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithWeights},
)
