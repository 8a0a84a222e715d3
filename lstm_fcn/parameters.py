"""The hyperparameters as constructor parameters.

Generated from the table of hyperparameters: python -m lstm_fcn.client.signature > lstm_fcn/parameters.py
"""

from typing import Literal

from sklearn.base import BaseEstimator


class Parameters(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The hyperparameters of an estimator."""

    def __init__(
        self,
        *,
        preset: Literal["default", "best", "paper"] = "default",
        recurrent: Literal["lstm", "alstm", "gru", "rnn", "dense", "none"] | None = None,
        views: Literal[
            "auto", "values", "differences", "deviations", "values+differences", "values+differences+deviations"
        ]
        | None = None,
        convolutions: bool | None = None,
        dimension_shuffle: bool | None = None,
        squeeze_excite: bool | Literal["auto"] | None = None,
        ensemble_size: int | None = None,
        num_layers: int | None = None,
        hidden_size: int | None = None,
        dropout: float | None = None,
        filters_1: int | None = None,
        filters_2: int | None = None,
        filters_3: int | None = None,
        kernel_size_1: int | None = None,
        kernel_size_2: int | None = None,
        kernel_size_3: int | None = None,
        dilations: Literal["auto", "1", "1+2", "1+2+4", "1+2+4+8"] | None = None,
        kernel_features: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        scaling: Literal["dataset", "series", "none"] | None = None,
        missing_values: Literal["error", "interpolate"] | None = None,
        length_policy: Literal["error", "pad", "resample"] | None = None,
        class_weight: Literal["balanced", "none"] | None = None,
        lr_schedule: Literal["plateau", "one-cycle", "constant"] | None = None,
        fine_tune_rounds: int | None = None,
        early_stopping_patience: int | None = None,
        validation_fraction: float | None = None,
        cross_validation_folds: int | None = None,
        device: Literal["auto", "cpu", "gpu"] | None = None,
        precision: Literal["auto", "float32", "bfloat16"] | None = None,
        verbose: bool = False,
    ) -> None:
        """Choose hyperparameters. None: the value that the preset sets, or the default in square brackets.

        Args:
            preset: default: one network and kernel features; best: four different networks, more accurate and about
                four times as slow; paper: the network of Karim et al. 2017 alone, with their settings. Hyperparameters
                that are set explicitly override the preset. [default]
            recurrent: recurrent block; alstm: LSTM with attention; dense: a dense layer in its place; none: the
                convolutions alone. [lstm]
            views: what the network sees of each variable: its values, their first differences, their deviations from
                the mean series of the training set. auto: values and differences; in an ensemble, each network has
                other views (see docs/models.md). [auto]
            convolutions: false: the recurrent block alone. [True]
            dimension_shuffle: true: the recurrent block sees each variable as one step; false: each time step as one.
                [True]
            squeeze_excite: squeeze-and-excite after the first two convolutions (MLSTM-FCN); auto: for several
                variables. [auto]
            ensemble_size: networks, from the seeds `seed`, `seed` + 1, ...; their probabilities are averaged. [1]
            num_layers: recurrent layers, one after the other. [1]
            hidden_size: cells of each recurrent layer. [8]
            dropout: dropout rate after each recurrent layer. [0.8]
            filters_1: filters of the first convolution. [128]
            filters_2: filters of the second convolution. [256]
            filters_3: filters of the third convolution. [128]
            kernel_size_1: width of the first convolution, in time steps. [8]
            kernel_size_2: width of the second convolution, in time steps. [5]
            kernel_size_3: width of the third convolution, in time steps. [3]
            dilations: distances, in time steps, between the weights of the first convolution; its filters are divided
                among several, which see patterns of different length. auto: 1+2+4+8; in an ensemble, the networks
                differ. [auto]
            kernel_features: features of fixed convolutional kernels (Dempster et al. 2021), read by a linear layer
                whose probabilities are averaged with those of the networks. Rounded to a multiple of 84; 0: networks
                alone. [2000]
            lr: learning rate of Adam; the peak of a one-cycle schedule. [0.005]
            batch_size: maximum number of series in one step; the series of an epoch are spread evenly over its steps.
                0: an eighth of the training series, at least 16 and at most 64. [0]
            epochs: passes over the training data. 0: so many that there are enough steps and no more (see
                docs/models.md); a network that has not learned the training data by then is trained on. [0]
            seed: seed of every random number. [0]
            scaling: scale by mean and standard deviation: of the training set, or of each series. [dataset]
            missing_values: empty and NaN cells: refused, or interpolated linearly between their neighbours. [error]
            length_policy: series of different length: refused, padded with their last value, or resampled to the length
                of the longest row. Missing values at the end of a row are then the end of the series. [error]
            class_weight: balanced: a rare class counts as much as a frequent one; none: every series counts the same.
                [none]
            lr_schedule: one-cycle: rises to lr, then falls to almost zero over all epochs; plateau (the paper):
                multiplied by 2^(-1/3) after 100 epochs without a lower training loss, down to 1e-4. [one-cycle]
            fine_tune_rounds: further rounds of `epochs` each (the paper's algorithm 1), from the best weights so far,
                with lr and batch-size halved each time. [0]
            early_stopping_patience: epochs without a lower validation loss (training loss without validation data)
                after which a round ends; 0: never. [0]
            validation_fraction: share of the training data held out for validation, the same share of each class. [0.0]
            cross_validation_folds: without validation data: predict each of this many parts of the training data by a
                model that was trained on the others, report the result as validation metrics, then train the model on
                all data; 0: do not. [0]
            device: where to train; auto: on the GPUs of the machine; on the CPU if it has none; an error if torch
                cannot use a GPU of the machine. [auto]
            precision: arithmetic of the training steps; auto: bfloat16 where the hardware has it. The model is float32.
                [auto]
            verbose: show the progress of training and its log.
        """
        self.preset = preset
        self.recurrent = recurrent
        self.views = views
        self.convolutions = convolutions
        self.dimension_shuffle = dimension_shuffle
        self.squeeze_excite = squeeze_excite
        self.ensemble_size = ensemble_size
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.filters_1 = filters_1
        self.filters_2 = filters_2
        self.filters_3 = filters_3
        self.kernel_size_1 = kernel_size_1
        self.kernel_size_2 = kernel_size_2
        self.kernel_size_3 = kernel_size_3
        self.dilations = dilations
        self.kernel_features = kernel_features
        self.lr = lr
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.scaling = scaling
        self.missing_values = missing_values
        self.length_policy = length_policy
        self.class_weight = class_weight
        self.lr_schedule = lr_schedule
        self.fine_tune_rounds = fine_tune_rounds
        self.early_stopping_patience = early_stopping_patience
        self.validation_fraction = validation_fraction
        self.cross_validation_folds = cross_validation_folds
        self.device = device
        self.precision = precision
        self.verbose = verbose
