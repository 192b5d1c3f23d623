"""Trains models/digits_resnet.py from scratch and writes its weights; about a minute on two cores.

    .venv/bin/python scripts/train_digits.py [--out FILE]

Seeded and deterministic: the same machine and the same torch write the same bytes.
"""

import argparse
import runpy
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

RECIPE = Path(__file__).resolve().parents[1] / "models" / "digits_resnet.py"
EPOCHS = 40
BATCH = 64


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every image moved by -1, 0 or 1 pixel in each direction, zeros coming in."""
    padded = functional.pad(images, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (len(images), 2), generator=generator).tolist()
    return torch.stack([p[:, y : y + 8, x : x + 8] for p, (y, x) in zip(padded, offsets, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RECIPE.with_suffix(".safetensors"))
    out = parser.parse_args().out

    recipe = runpy.run_path(str(RECIPE))
    (x_train, y_train), (x_test, y_test) = (tuple(map(torch.from_numpy, part)) for part in recipe["split"]())
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = recipe["DigitsResNet"]()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = -(-len(x_train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * steps)

    start = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(x_train), generator=generator).split(BATCH):
            logits = model(shifted(x_train[batch], generator))
            loss = functional.cross_entropy(logits, y_train[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if epoch % 5 == 0:
            print(f"epoch {epoch:2}  loss {total / len(x_train):.4f}  {time.perf_counter() - start:.0f} s", flush=True)

    model.eval()
    with torch.no_grad():
        correct = int((model(x_test).argmax(1) == y_test).sum())
    save_file(model.state_dict(), out)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"test accuracy {correct / len(y_test):.2%} ({correct} of {len(y_test)}), {parameters:,} parameters -> {out}")


if __name__ == "__main__":
    main()
