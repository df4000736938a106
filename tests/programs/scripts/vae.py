"""A variational autoencoder on digits, by hand: reparameterization, BCE and KL as sums."""

import argparse

import numpy as np
import torch
import torch.utils.data
from torch import nn, optim
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--epochs", type=int, default=8)
args = parser.parse_args()

torch.manual_seed(1)
device = torch.device("cpu")
images = torch.tensor(np.loadtxt(args.data, delimiter=",")[:, :-1] / 16.0, dtype=torch.float32)
train_loader = torch.utils.data.DataLoader(images[:1500], batch_size=50, shuffle=True)
test_loader = torch.utils.data.DataLoader(images[1500:], batch_size=100, shuffle=False)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc21 = nn.Linear(128, 8)
        self.fc22 = nn.Linear(128, 8)
        self.fc3 = nn.Linear(8, 128)
        self.fc4 = nn.Linear(128, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 64))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


model = VAE().to(device)
optimizer = optim.Adam(model.parameters(), lr=2e-3)


def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD


for epoch in range(1, args.epochs + 1):
    model.train()
    train_loss = 0
    for data in train_loader:
        data = data.to(device)
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        train_loss += loss.item()
        optimizer.step()
    print("====> Epoch: {} Average loss: {:.4f}".format(epoch, train_loss / len(train_loader.dataset)))

model.eval()
test_loss = 0
with torch.no_grad():
    for data in test_loader:
        recon, mu, logvar = model(data)
        test_loss += loss_function(recon, data, mu, logvar).item()
    sample = model.decode(torch.randn(64, 8).to(device)).cpu().view(64, 1, 8, 8)
assert sample.min() >= 0 and sample.max() <= 1
test_loss /= len(test_loader.dataset)
print(f"train {train_loss / len(train_loader.dataset):.4f} test {test_loss:.4f}")
