"""scikit-learn's callbacks, where its version has them."""
