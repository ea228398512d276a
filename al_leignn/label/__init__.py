"""Labellers: DFT by subprocess, any ASE calculator, any command."""
