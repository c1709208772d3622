"""A problem of one's own is a function that returns an Objective; the command line does the rest."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import lossatlas as la


def objective() -> la.Objective:
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(100):  # or: model.load_state_dict(torch.load("model.pt", weights_only=True))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return la.Objective(model, F.cross_entropy, (inputs, targets), name="digits")
