"""The two experiments of arXiv:2312.08500 (Gaussian images and MNIST), by the paper's method and by ours.

``cases`` defines targets and measurements, ``learning`` trains the networks, ``methods`` are the columns of the table,
``runner`` runs every method on every case, ``tables`` computes means, ``experiment`` combines them. ``demo`` needs no PyTorch.
"""
