"""What users of other programs type out of habit."""

from __future__ import annotations

_DEVICE = (
    "a GPU is used where PyTorch sees one, CUDA_VISIBLE_DEVICES= before the command keeps to the CPU, and "
    "accelerate launch uses several GPUs"
)
MEANT = {
    **dict.fromkeys(
        ("device", "devices", "gpu", "gpus", "gpu_ids", "cuda", "cpu", "use_cuda", "num_gpu", "n_gpus", "accelerator"), _DEVICE
    ),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "iterations", "total_iter", "max_steps"), "type trainer.steps=STEPS"),
    **dict.fromkeys(("batch_size", "bs"), "type trainer.batch=IMAGES"),
    **dict.fromkeys(("learning_rate", "lr"), "type trainer.optimiser.lr=RATE"),
    **dict.fromkeys(("data", "data_dir", "data_root", "dataroot", "dataset_dir"), "type dataset=folder dataset.root=FOLDER"),
    **dict.fromkeys(
        ("resume", "resume_from", "ckpt", "ckpt_path", "weights", "pretrained"),
        "type checkpoint=RUN_FOLDER to begin with its weights; the same command again continues a run",
    ),
    **dict.fromkeys(("in", "image", "images", "img"), "type input=IMAGE"),
    **dict.fromkeys(
        ("out", "out_dir", "output_dir", "save_dir"), "type output=FILE for an image, or outputs=FOLDER for the folder of all runs"
    ),
    **dict.fromkeys(("upscale", "sf", "factor"), "type scale=NUMBER"),
}
"""What newcomers type as other programs call it, by the last part of a setting's name, and what to type here."""
