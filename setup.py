"""Packages of the distribution; all else is in pyproject.toml, which cannot add one package to those it finds."""

from setuptools import find_packages, setup

# The example configurations lie in configs/ of the source and in seg/configs once installed.
setup(
    packages=[*find_packages(include=["seg", "seg.*"]), "seg.configs", "seg.configs.ablation"],
    package_dir={"seg.configs": "configs"},
)
