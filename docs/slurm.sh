#!/bin/bash
# A run that outlives its time limit:  sbatch docs/slurm.sh experiment=best hydra.run.dir=runs/a
# Options of sbatch's own go in front, and take the place of those below:  sbatch --time=24:00:00 docs/slurm.sh …
#SBATCH --job-name=srcnn
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1      # as many as trainer.devices
#SBATCH --cpus-per-task=8
#SBATCH --time=2:00:00
#SBATCH --signal=SIGUSR1@90      # seconds before the end in which to save; Lightning then queues the job again
#SBATCH --requeue
#SBATCH --open-mode=append
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" python train.py "$@" resume=auto
code=$?
# SIGUSR1 while Python starts, or tests: Lightning does not listen then.
[ $code != 138 ] || scontrol requeue "$SLURM_JOB_ID"
exit $code
