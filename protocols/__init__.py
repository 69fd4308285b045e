"""The paper's protocols as commands: data efficiency, out of distribution, and scoring a checkpoint one has."""
