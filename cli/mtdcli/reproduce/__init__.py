"""The two experiments of arXiv:2312.08500 (Gaussian images and MNIST), by the paper's method and by ours.

``cases`` says what is hidden in which noise, ``learning`` trains the networks, ``methods`` are the columns of the
table, ``runner`` runs every method on every case, ``tables`` sums up, ``experiment`` is all of it. ``demo`` needs no PyTorch.
"""
