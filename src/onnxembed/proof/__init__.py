"""The proof that travels with an artifact: what its model gives for a few probes, and whether a graph gives it here.

- `probes.py`: the texts and pairs that everything is compared on.
- `record.py`: proof.npz, the reference's outputs in the artifact.
- `limits.py`, `differences.py`: how far results may be from the reference's, and how far they are.
- `compare.py`: runs an open model on a proof.
- `recording.py`: makes a proof where there is no reference: from the plain fp32 graph on the CPU.
- `opening.py`, `checking.py`: whether a model that was opened is checked, and the check; `remembered.py`: which checks
  were passed on this machine.
- `verifying.py`: all graphs of an artifact on its proof, in all ways of running.
"""
